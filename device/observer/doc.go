// SPDX-License-Identifier: Apache-2.0

// Package observer is the source of page classes that needs nothing of the guest:
// it reads the memory of a Linux guest from the host, by package introspect, while
// the guest runs.
//
// # Which kernel
//
// An [Observer] looks for the kernel in the background, once a guest's memory is
// there, and keeps what it learns for one boot. A kernel counts only when three
// things hold at the time of a request:
//
//   - It has proven itself, and says that it is in normal operation
//     ([introspect.Kernel.Check]).
//   - It was seen alive in this boot: its clock went on. After a reset, memory
//     still has all of the kernel that is gone, and would prove it again.
//   - The machine was not reset since. The frontend counts that.
//
// # Exactness
//
// What is read while the guest runs can be stale or torn. So the Observer asks the
// frontend which of the pages that it concluded from were written since the dirty
// log was armed. It drops each free block whose struct page lies in one of them.
// What is left was free all the time from the request to that question, and all
// that is written later is in the log. It is safe for a guest that is paused, too,
// and may go on at any time.
package observer
