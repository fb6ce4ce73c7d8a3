// SPDX-License-Identifier: Apache-2.0

// Package memory holds the two programs that a test guest runs on its memory.
//
// [Fill] touches a lot of memory and gives it back, so that the guest's free
// pages are not zero pages: memory that was never touched costs a migration
// nothing to begin with.
//
// [Pool] owns memory of known content and keeps allocating, writing, verifying
// and freeing it through a whole migration. On the destination it verifies all
// of it: a page whose last write did not arrive, or that another page's content
// landed on, is a [Mismatch].
//
// Both work on anonymous memory of the calling process and need no privilege,
// so their own tests run anywhere.
package memory
