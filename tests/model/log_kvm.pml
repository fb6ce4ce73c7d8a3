/* SPDX-License-Identifier: Apache-2.0 */

/*
 * KVM with manual protection and KVM_DIRTY_LOG_INITIALLY_SET. When logging starts
 * all bits are set, and no page is protected. Only KVM_CLEAR_DIRTY_LOG protects
 * pages, and only those whose bits it clears.
 */

#include "kvm.pml"

bool seen[PAGES]; /* QEMU's KVMSlot.dirty_bmap: bits that log_clear may clear */

/* [kvm_mmu_slot_apply_flags, kvm_alloc_dirty_bitmap and bitmap_set] */
inline log_start() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> dirty[q] = true; protect[q] = false; seen[q] = false; q++
		:: else -> break
		od;
		q = 0;
		printf("logging starts: all bits set, nothing protected\n")
	}
}

/* KVM also removes the protection, later. [kvm_mmu_slot_apply_flags] */
inline log_stop() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> dirty[q] = false; protect[q] = false; seen[q] = false; q++
		:: else -> break
		od;
		q = 0
	}
}

/*
 * The log is copied and stays as it is [kvm_vm_ioctl_get_dirty_log, without
 * protect]. The bits go to QEMU's flags [kvm_slot_sync_dirty_pages] and from
 * there to bmap. The log is cleared later [ramblock_sync_dirty_bitmap:
 * clear_bmap_set].
 */
inline log_sync() {
	d_step {
		q = 0;
		do
		:: q < PAGES ->
			seen[q] = dirty[q];
			HARVESTED(q, dirty[q]);
			q++
		:: else -> break
		od;
		q = 0;
		PRINT_HARVEST
	}
}

/*
 * [migration_clear_memory_region_dirty_bitmap -> kvm_log_clear_one_slot ->
 * kvm_vm_ioctl_clear_dirty_log]. A bit that no sync has read is not cleared. The
 * TLBs are flushed after the bits are cleared, before the ioctl returns.
 */
inline log_clear(k) {
	if
	:: clear_bmap[k] ->
		d_step {
			clear_bmap[k] = false;
			q = k * CHUNK_PAGES;
			do
			:: q < PAGES && q < (k + 1) * CHUNK_PAGES ->
				if
				:: seen[q] && dirty[q] -> dirty[q] = false; protect[q] = true; recent[q] = true
				:: else
				fi;
				seen[q] = false;
				q++
			:: else -> break
			od;
			q = 0;
			printf("log of chunk %d cleared: its pages are protected\n", k)
		};
		flush()
	:: else
	fi
}
