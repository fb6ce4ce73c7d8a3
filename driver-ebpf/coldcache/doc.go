// SPDX-License-Identifier: Apache-2.0

// Package coldcache has the kernel drop clean page cache that nobody has used lately. The
// kernel's own reclaim does it (memory.reclaim of cgroup v2), so the kernel always knows
// what it still has. Nothing is swapped out. The package asks for no writeback of dirty
// pages, and for nothing where many are dirty: the kernel may start its flushers, as in any
// reclaim.
//
// The kernel does not say which pages it will take. So the package asks for little at a
// time, and only while cold cache is left: reclaim takes cold pages first. It ignores the
// memory.min and memory.low of the group that it is asked of. So the package asks it of no
// group that has one, nor of those within.
package coldcache
