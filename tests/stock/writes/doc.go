// SPDX-License-Identifier: Apache-2.0

// Package writes tells which pages of shared memory a process has written. The kernel knows
// that from the process's own page tables, so writes of other processes to the same memory
// do not count. The watched program needs no change except the code that [Inject] adds.
//
// It needs userfaultfd with asynchronous write protection and PAGEMAP_SCAN, Linux
// 6.7 (Documentation/admin-guide/mm/pagemap.rst, userfaultfd.rst).
package writes
