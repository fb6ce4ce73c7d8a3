// SPDX-License-Identifier: Apache-2.0

// Package dma gives user space memory that a device can reach: mapped here,
// with known physical addresses that do not change.
//
// The memory is that of mmap-able eBPF array maps. Their pages are kernel memory, which is
// never swapped or moved. Locked user memory would not do, because compaction moves it. A
// hugetlb pool would have to be set up first. Also, the device can read records that an eBPF
// program writes into such a map without a copy.
//
// Two neighbouring pages need not be physically contiguous. So data that must be contiguous
// must lie in one page. Addresses are guest-physical: a device behind an IOMMU cannot use
// them.
package dma
