// SPDX-License-Identifier: Apache-2.0

// Package introspect finds out from the host what a Linux guest uses each page of
// its memory for. It needs no agent and changes nothing in the guest.
//
// [Locate] finds the kernel in the guest's memory ([physmem.Memory]). What it
// learns stays true for one boot; [Kernel.Check] says whether that boot is over.
// [Kernel.Scan] reads the kernel's struct pages. It counts pages by class, node
// and zone, and returns the free blocks.
//
// # Trust
//
// The guest can write anything into its memory. So each pointer, count and string
// is bounded, in time and in memory. A structure that is not recognised is an
// error that says why; see [layout.ErrUnknown].
//
// A guest kernel can only harm its own guest by lying. But a program in the guest
// must not be able to pose as the kernel, or pages of other programs could be
// lost. So a VMCOREINFO note in memory alone proves nothing: a program may have
// written it, or a kernel that ran before a reboot. A kernel is accepted when
// three things hold:
//
//   - Its page tables are those that the real-mode trampoline in the first MiB of
//     memory has copied (Linux: arch/x86/realmode/init.c). Processors start and
//     wake up through the trampoline. Linux gives that memory to no program, and
//     each kernel writes it when it boots.
//   - All symbols that its note names lie in the kernel image by those tables.
//   - The kernel's own variable vmcoreinfo_note points to this note.
//
// # Exactness
//
// A struct page that is read while the guest runs can be stale or torn. Each free
// block therefore comes with its evidence: the frames that hold its struct page.
// Suppose that nothing wrote to these frames from before the read until some
// later instant. Then the struct page did not change in that time. The page tables
// mapped it there at one instant at least (see [paging.Space.Settled]), so at that
// instant the block was free. A free page that a CPU keeps needs more evidence: see
// [ScanOptions.CPULists].
package introspect
