// SPDX-License-Identifier: Apache-2.0

// Package writes tells which pages of shared memory a process has written, as
// the kernel knows from the process's own page tables. What other processes
// write to the same memory does not count, and the program that is watched need
// not help, but for its [Inject]ed beginning.
//
// It needs userfaultfd with asynchronous write protection and PAGEMAP_SCAN, Linux
// 6.7 (Documentation/admin-guide/mm/pagemap.rst, userfaultfd.rst).
package writes
