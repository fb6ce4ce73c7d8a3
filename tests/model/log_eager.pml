/* SPDX-License-Identifier: Apache-2.0 */

/*
 * KVM without manual protection. All pages are protected when logging starts.
 * KVM_GET_DIRTY_LOG clears the bits that it copies, and protects their pages
 * again. Nothing remains to be cleared later, so ARM does nothing.
 */

#include "kvm.pml"

/* [kvm_mmu_slot_apply_flags: kvm_mmu_slot_remove_write_access] */
inline log_start() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> dirty[q] = false; protect[q] = true; q++
		:: else -> break
		od;
		q = 0;
		printf("logging starts: all pages protected\n")
	}
}

inline log_stop() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> dirty[q] = false; protect[q] = false; q++
		:: else -> break
		od;
		q = 0
	}
}

/* [kvm_get_dirty_log_protect, kvm_slot_sync_dirty_pages,
 * ramblock_sync_dirty_bitmap]. The TLBs are flushed before the ioctl returns. */
inline log_sync() {
	d_step {
		q = 0;
		do
		:: q < PAGES ->
			HARVESTED(q, dirty[q]);
			recent[q] = dirty[q];
			protect[q] = protect[q] || dirty[q];
			dirty[q] = false;
			q++
		:: else -> break
		od;
		q = 0;
		PRINT_HARVEST
	};
	flush()
}

/* [kvm_physical_log_clear returns at once] */
inline log_clear(k) {
	clear_bmap[k] = false
}
