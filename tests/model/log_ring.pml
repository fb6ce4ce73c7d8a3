/* SPDX-License-Identifier: Apache-2.0 */

/*
 * KVM's dirty ring, without manual protection. All pages are protected when
 * logging starts. A fault adds the page to the ring of the CPU, which has one
 * entry here. A CPU with a full ring waits until the ring is reaped. There is
 * nothing to clear, so ARM does nothing.
 */

byte ring[CPUS];      /* page + 1, or 0 [kvm_dirty_ring_push] */
bool collected[CPUS]; /* the entry is reaped but not reset: KVM cannot use it yet */
bool protect[PAGES];  /* the page's SPTE is not writable */
bool seen[PAGES];     /* KVMSlot.dirty_bmap: reaped, not synced yet */

#define MAY_STORE(c, p) (!protect[p])
#define NOT_IN_STORE(p) true
#define STORE_DONE(c, p) skip
#define IDLE(c) true

#ifdef INTROSPECT
/* As with the bitmap, a store may come before the entry: see kvm.pml. */
byte pending[CPUS]; /* page + 1, or 0 */
#define LOGGED(c) (pending[c] == 0)
#define LOG_STEPS(c, p) \
	:: d_step { running && page[p] != FREE && protect[p] && ring[c] == 0 && LOGGED(c) -> \
		pending[c] = p + 1; protect[p] = false; \
		printf("cpu %d faults on page %d: it may be written\n", c, p) } \
	:: d_step { pending[c] == p + 1 -> \
		ring[c] = p + 1; pending[c] = 0; \
		printf("page %d is in the ring of cpu %d\n", p, c) }
#else
/* [mark_page_dirty_in_slot] */
#define LOGGED(c) true
#define LOG_STEPS(c, p) \
	:: d_step { running && page[p] != FREE && protect[p] && ring[c] == 0 -> \
		ring[c] = p + 1; protect[p] = false; \
		printf("cpu %d faults on page %d: it is in the ring\n", c, p) }
#endif

/* [kvm_dirty_ring_reap_one, kvm_dirty_ring_mark_page] */
inline collect_one(x) {
	if
	:: ring[x] != 0 -> seen[ring[x] - 1] = true; collected[x] = true
	:: else
	fi
}
inline collect() {
	collect_one(0);
	collect_one(1)
}

/* [KVM_RESET_DIRTY_RINGS: kvm_reset_dirty_gfn] */
inline reset_one(x) {
	if
	:: collected[x] -> protect[ring[x] - 1] = true; ring[x] = 0; collected[x] = false
	:: else
	fi
}
inline reset() {
	reset_one(0);
	reset_one(1)
}

/* kvm_slots_lock lets only one at a time reap: a CPU whose ring is full, the thread
 * that reaps once a second, or the sync. The first two are one process here.
 * [kvm_dirty_ring_reap, kvm_dirty_ring_reaper_thread] */
#define REAPING (collected[0] || collected[1])
proctype reaper() {
end:
	do
	:: d_step { !REAPING && (ring[0] != 0 || ring[1] != 0) -> collect();
		printf("the rings are reaped\n") };
		d_step { reset(); printf("and reset: their pages are protected\n") }
	od
}

/* [kvm_mmu_slot_apply_flags: kvm_mmu_slot_remove_write_access] */
inline log_start() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> protect[q] = true; q++
		:: else -> break
		od;
		q = 0;
		printf("logging starts: all pages protected\n")
	}
}

inline log_stop() {
	d_step {
		!REAPING;
		q = 0;
		do
		:: q < PAGES -> protect[q] = false; seen[q] = false; q++
		:: else -> break
		od;
		q = 0;
		ring[0] = 0; ring[1] = 0
	}
}

/* [kvm_log_sync_global: kvm_dirty_ring_flush, kvm_slot_sync_dirty_pages,
 * kvm_slot_reset_dirty_pages; ramblock_sync_dirty_bitmap] */
inline log_sync() {
#ifdef INTROSPECT
	LOGGED(0); /* [kvm_cpu_synchronize_kick_all] */
	LOGGED(1);
#endif
	d_step { !REAPING -> collect() };
	d_step {
		reset();
		q = 0;
		do
		:: q < PAGES ->
			HARVESTED(q, seen[q]);
			seen[q] = false;
			q++
		:: else -> break
		od;
		q = 0;
		PRINT_HARVEST
	}
}

/* [docs/window.md, "Peeking": memory_global_dirty_log_sync] */
inline log_peek() {
	log_sync()
}
#define IN_HARVEST(p) harvest[p]

/* [KVM's listener has no log_clear with the ring] */
inline log_clear(k) {
	clear_bmap[k] = false
}
