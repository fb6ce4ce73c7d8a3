// SPDX-License-Identifier: Apache-2.0

// Package memory holds the two programs that a test guest runs on its memory.
//
// [Fill] writes a lot of memory and frees it. So the guest's free pages are not zero
// pages, which a migration would send at almost no cost.
//
// [Pool] keeps allocating, writing, verifying and freeing memory of known content
// through a whole migration. At the destination it verifies all of its memory. A page
// whose last write did not arrive, or that has the content of another page, is a
// [Mismatch].
//
// Both work on anonymous memory of the calling process and need no privilege,
// so their own tests run anywhere.
package memory
