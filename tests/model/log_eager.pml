/* SPDX-License-Identifier: Apache-2.0 */

/*
 * KVM without manual protection: all pages are protected when logging starts,
 * and KVM_GET_DIRTY_LOG clears the bits that it copies, and protects their
 * pages again. There is nothing left to clear later, so ARM does nothing.
 */

bool dirty[PAGES];   /* kvm_memory_slot.dirty_bitmap */
bool protect[PAGES]; /* the page's SPTE is not writable */
bool recent[PAGES];  /* protected by a get that has not returned yet */
bool flushed[CPUS];  /* ... which has flushed this CPU's TLB */

/* A CPU may store through a TLB entry that it has from before. */
#define MAY_STORE(c, p) (!protect[p] || (recent[p] && !flushed[c]))
#define NOT_IN_STORE(p) true
#define STORE_DONE(c, p) skip
#define IDLE(c) true

/* [fast_page_fault, mark_page_dirty_in_slot] */
#define LOG_STEPS(c, p) \
	:: d_step { running && page[p] != FREE && protect[p] -> \
		dirty[p] = true; protect[p] = false; \
		printf("cpu %d faults on page %d: KVM sets its bit\n", c, p) }

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
			bmap[q] = bmap[q] || dirty[q];
			recent[q] = dirty[q];
			protect[q] = protect[q] || dirty[q];
			dirty[q] = false;
			clear_bmap[q / CHUNK_PAGES] = true;
			q++
		:: else -> break
		od;
		q = 0;
		PRINT_SYNC
	};
	flush()
}

/* [kvm_flush_remote_tlbs_memslot] */
inline flush() {
	flushed[0] = true;
	d_step {
		flushed[0] = false; /* and flushed[1]: over */
		q = 0;
		do
		:: q < PAGES -> recent[q] = false; q++
		:: else -> break
		od;
		q = 0
	}
}

/* [kvm_physical_log_clear returns at once] */
inline log_clear(k) {
	clear_bmap[k] = false
}
