// SPDX-License-Identifier: Apache-2.0

// Package localise moves the memory of a running VM to a NUMA node of this host: from memory
// that is far, such as a CXL expander, to memory that is near, or back. What is hot goes first,
// what is cold last, and what the guest calls free stays where it is. Linux moves the pages while
// the guest runs (move_pages(2)), so nothing can be lost. Whoever touches a page that is being
// moved waits for that one page.
//
// The memory has to be in a file of tmpfs, a memfd or hugetlbfs, as vhost-user needs it. Memory
// that the guest has never touched is not allocated by this. It will be allocated at the node:
// the file gets it as its preferred one.
package localise
