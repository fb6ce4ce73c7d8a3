// SPDX-License-Identifier: Apache-2.0

// Package dma gives user space memory that a device can reach: mapped here,
// with known physical addresses that do not change.
//
// The memory is that of mmap-able eBPF array maps. Their pages are kernel memory,
// which is never swapped and never moved. Locked user memory would not do:
// compaction moves it. A hugetlb pool would have to be set up first. And what an
// eBPF program writes into such a map can be passed to the device as it lies.
//
// Two pages are neighbours only by chance: what must be contiguous must not cross
// the end of a page. Addresses are guest-physical. For the device they are the same
// only where no IOMMU translates.
package dma
