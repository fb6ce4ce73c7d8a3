// SPDX-License-Identifier: Apache-2.0

// Package guestmem is a guest's memory as a vhost-user backend sees it.
//
// A [Space] is the memory of one connection. Its table of regions changes as the
// frontend says; each state of it is an immutable [Snapshot]. A driver behind an
// IOMMU uses addresses that the Space's [TLB] translates. What is written goes to
// the [DirtyLog] while the guest migrates.
//
// Some accesses cannot be made yet, but will succeed later: an error is a [Delay]
// then.
package guestmem
