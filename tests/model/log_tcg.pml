/* SPDX-License-Identifier: Apache-2.0 */

/*
 * TCG: while the TLB entry of a page has TLB_NOTDIRTY, a store to the page takes
 * the slow path, which sets the page's flag. There is nothing to clear, so ARM
 * does nothing.
 *
 *   NO_TLB_FLUSH  the fault of stock QEMU that patch 0001 mends
 */

bool flag[PAGES];        /* ram_list.dirty_memory[DIRTY_MEMORY_MIGRATION] */
bool tlb[CPUS * PAGES];  /* entries without TLB_NOTDIRTY */
byte step[CPUS];         /* the step in notdirty_write(); 0: not in it */
byte where[CPUS];        /* the page that notdirty_write() handles */
bool fresh_bits;         /* log_sync sets a bit in bmap that was not set */
#ifdef NO_TLB_FLUSH
bool queued;             /* a flush is queued since logging started [tcg_commit] */
#endif

#define LOGGED(c) true
#define DIRTY(c, p) tlb[(c) * PAGES + (p)]
#define IN_STORE(c, p) (step[c] != 0 && where[c] == (p))
#define NOT_IN_STORE(p) (!IN_STORE(0, p) && !IN_STORE(1, p))
#define IDLE(c) (step[c] == 0)

#define MAY_STORE(c, p) (step[c] == 0 && DIRTY(c, p) || \
	IN_STORE(c, p) && (step[c] == 2 || !flag[p]))
#define STORE_DONE(c, p) DIRTY(c, p) = DIRTY(c, p) || step[c] == 2; step[c] = 0; where[c] = 0

/* [notdirty_write: cpu_physical_memory_set_dirty_range and
 * cpu_physical_memory_is_clean here; tlb_set_dirty is one step with the store] */
#define LOG_STEPS(c, p) \
	:: d_step { running && page[p] != FREE && step[c] == 0 && !DIRTY(c, p) -> \
		flag[p] = true; step[c] = 1; where[c] = p; \
		printf("cpu %d sets the flag of page %d\n", c, p) } \
	:: d_step { step[c] == 1 && where[c] == p && flag[p] -> step[c] = 2; \
		printf("cpu %d finds the flag of page %d set: it need not come here again\n", c, p) }

/* No store is noticed yet: flags are set, and TLB entries lack TLB_NOTDIRTY.
 * [memory_global_dirty_log_start] */
inline log_start() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> flag[q] = true; q++
		:: else -> break
		od;
		q = 0;
		do
		:: q < CPUS * PAGES -> tlb[q] = true; q++
		:: else -> break
		od;
		q = 0;
#ifdef NO_TLB_FLUSH
		queued = true;
#endif
		printf("logging starts: all flags set, no store is noticed yet\n")
	}
}

inline log_stop() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> flag[q] = true; q++
		:: else -> break
		od;
		q = 0;
		do
		:: q < CPUS * PAGES -> tlb[q] = true; q++
		:: else -> break
		od;
		q = 0
	}
}

/*
 * [cpu_physical_memory_sync_dirty_bitmap]. TLB entries are reset if a bit is
 * new in bmap [cpu_physical_memory_dirty_bits_cleared]. With patch 0001 each CPU
 * also flushes its TLB after every sync [tcg_log_global_after_sync].
 */
inline log_sync() {
	d_step {
		fresh_bits = false;
		q = 0;
		do
		:: q < PAGES ->
			fresh_bits = fresh_bits || (flag[q] && !bmap[q]);
			HARVESTED(q, flag[q]);
			flag[q] = false;
			q++
		:: else -> break
		od;
		q = 0;
		do
		:: q < CPUS * PAGES -> tlb[q] = tlb[q] && !fresh_bits; q++
		:: else -> break
		od;
		q = 0;
		fresh_bits = false;
		PRINT_SYNC
	};
	after_sync(0);
	after_sync(1)
}

/* Each CPU does this between two instructions. [run_on_cpu] */
inline after_sync(x) {
	d_step {
		IDLE(x);
#ifdef NO_TLB_FLUSH
		if
		:: queued -> flush(x); queued = (x == 0)
		:: else
		fi
#else
		flush(x);
		printf("cpu %d flushes its TLB\n", x)
#endif
	}
}

/* [tlb_flush] */
inline flush(x) {
	q = 0;
	do
	:: q < PAGES -> DIRTY(x, q) = false; q++
	:: else -> break
	od;
	q = 0
}

/* Each CPU finishes its instruction. After that the flags are complete.
 * [docs/window.md, "Peeking": memory_global_after_dirty_log_sync] */
inline log_peek() {
	after_sync(0);
	after_sync(1)
}
#define IN_HARVEST(p) flag[p]

/* [TCG's listener has no log_clear] */
inline log_clear(k) {
	clear_bmap[k] = false
}
