// SPDX-License-Identifier: Apache-2.0

// Package observer is a source of page classes that needs no help from the guest:
// it reads the memory of a Linux guest from the host, by package introspect, while
// the guest runs.
//
// # Which kernel
//
// An [Observer] looks for the kernel when it is asked, and with Options.Background
// also before. It keeps what it learns for one boot. It uses a kernel only when
// three things hold at the time of a request:
//
//   - The kernel is proven to run, in normal operation
//     ([introspect.Kernel.Check]).
//   - It was seen alive in this boot: its clock went on. After a reset, memory
//     still holds the previous kernel, which passes the check above.
//   - The machine was not reset since. The frontend counts resets.
//
// # Exactness
//
// What is read while the guest runs can be stale or torn. So the Observer asks the
// frontend which of the pages that hold struct pages of free blocks were written
// since the dirty log was armed. It drops every block whose struct page lies in
// such a page. All others were free from the request until the frontend's answer,
// and later writes are in the dirty log. This holds for a paused guest, too, which
// may go on at any time.
package observer
