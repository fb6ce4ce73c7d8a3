// SPDX-License-Identifier: Apache-2.0

// Package pagerun runs an eBPF program of the host over the guest's struct pages: for a few
// thousand of them at a time, one program at a time, and never longer than its owner can do
// without the processor that a hostile program takes. What such programs have in common is in
// driver-ebpf/README.md.
package pagerun
