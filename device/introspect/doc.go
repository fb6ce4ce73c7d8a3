// SPDX-License-Identifier: Apache-2.0

// Package introspect tells from the host alone what a Linux guest uses each
// page of its memory for. The guest has no part in it: there is no agent, and
// nothing in it is changed.
//
// [Locate] finds the kernel in the guest's memory, which [physmem.Memory]
// reads. What it learns stays true for one boot; [Kernel.Check] tells whether
// that boot is over. [Kernel.Scan] reads the kernel's struct pages: it counts
// pages by class, node and zone, and hands out the free blocks.
//
// # Trust
//
// Everything in the guest's memory is the guest's word. Each pointer, count and
// string is bounded, in time and in memory, and what is not recognised is
// refused with an error that says why; see [layout.ErrUnknown].
//
// The kernel's word is taken for its own memory only. A program in the guest
// must not be able to speak for the kernel, or it could have pages of others
// lost. So a note that lies in some page proves nothing, and neither does one
// of a kernel that ran before a reboot. A found kernel has proven three things:
//
//   - Its page tables are those that the trampoline in the first MiB of memory
//     copied, by which a processor starts or wakes up
//     (Linux: arch/x86/realmode/init.c). No program gets that memory, and each
//     kernel that boots writes it anew.
//   - All that its note names lies in the kernel image by those tables.
//   - The kernel's own variable vmcoreinfo_note points to the very note.
//
// # Exactness
//
// A struct page that is read while the guest runs can be stale or torn. Each
// free block therefore comes with its evidence: the frames of guest memory from
// which it was concluded that the block is free. If they were not written from
// before the read to some later instant, the struct page was the same all that
// time. It was the block's at one instant at least: the one when the page tables
// said so (see [paging.Space.Settled]).
package introspect
