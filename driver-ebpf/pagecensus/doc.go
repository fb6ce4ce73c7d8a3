// SPDX-License-Identifier: Apache-2.0

// Package pagecensus counts the guest's pages by what the kernel uses them for, with a program
// of the host that keeps the contract of driver-ebpf/README.md (bpf/census.bpf.c is one).
package pagecensus
