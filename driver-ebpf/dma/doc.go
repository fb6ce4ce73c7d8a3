// SPDX-License-Identifier: Apache-2.0

// Package dma gives user space memory that a device can reach: mapped here,
// with known physical addresses that do not change.
//
// The memory is that of mmap-able eBPF array maps. Their pages are kernel
// memory: never swapped and never migrated, which locked user memory is not
// promised (compaction moves it). No hugetlb pool has to be set up, and what an
// eBPF program writes into such a map can be described to the device as it lies.
// Pages are contiguous only by chance, so nothing that must be contiguous may
// cross the end of one.
//
// Physical addresses are guest-physical. They are bus addresses only where no
// IOMMU translates for the device.
package dma
