// SPDX-License-Identifier: Apache-2.0

// Package workingset finds out which of the guest's pages were used lately, with a program of
// the host that keeps the contract of driver-ebpf/README.md (bpf/sampler.bpf.c is one), and with
// the kernel's multi-generational LRU, which it has age its lists (mm/vmscan.c, Documentation/
// admin-guide/mm/multigen_lru.rst). A kernel without that is refused.
package workingset
