/* SPDX-License-Identifier: Apache-2.0 */

/*
 * QEMU's migration thread. The faults, each a -D:
 *
 *   CLEAR_AT_HINT    without ARM; the log is cleared when the hint arrives
 *   WALK_BEFORE_ARM  the guest is asked first, and ARM comes after its answer
 *   NO_SYNC_COUNT    a sync between ARM and the use of the answer is ignored
 *   LATE_ACCEPTED    a report after the deadline is used
 *   LATER_ROUND      the guest is asked after a later sync, without ARM
 *   LATER_ROUND_ARM  the same, with ARM
 *   NO_GENERATION    a report of another request is used
 *   COUNTED          generations start at 1 again on each host
 *   WATCHED_LATE     RAM that arrives is watched from the answer on
 *   WATCHED_ONCE     what is written later to RAM that arrives is not looked for
 */

#if defined(LATER_ROUND) || defined(LATER_ROUND_ARM)
#define LATER later = true
#else
#define LATER skip
#endif

/* A migration may go on for ever because the guest writes. To check that nothing
 * else keeps it from completing, its rounds are bounded here. */
#ifdef LIVENESS
byte rounds;
#define MAY_SYNC rounds < 2 -> rounds++
#else
#define MAY_SYNC true
#endif

#define SEND_STEPS(p) :: bmap[p] -> at = p; goto send

#ifdef HARVEST
/* [cpu_physical_memory_sync_dirty_bitmap] */
inline take() {
	d_step {
		q = 0;
		do
		:: q < PAGES ->
			bmap[q] = bmap[q] || harvest[q];
			harvest[q] = false;
			clear_bmap[q / CHUNK_PAGES] = true;
			q++
		:: else -> break
		od;
		q = 0;
		PRINT_SYNC
	}
}
#endif

/* [migration_bitmap_sync]. It passes over RAM that is not sent. */
inline sync() {
#if defined(ARRIVES) && defined(LOG_TCG)
	log_peek()
#else
	log_sync()
#if defined(HARVEST) && !defined(ARRIVES)
	; take()
#endif
#endif
}

#ifdef ARRIVES
/* [ram_sync_watched] */
inline sync_watched() {
#ifdef LOG_TCG
	log_sync()
#else
	take()
#endif
}
#endif

#ifdef INTROSPECT
/* [docs/window.md, "Peeking": in fbpp_window_wait] */
inline answer_peek() {
	log_peek();
	d_step {
		if
		:: IN_HARVEST(MEMMAP) -> peek = WRITTEN; printf("QEMU says: the memmap was written\n")
		:: else -> peek = CONSTANT; printf("QEMU says: the memmap was not written\n")
		fi
	}
#ifdef PEEK_CONSUMES
	; d_step {
		q = 0;
		do
		:: q < PAGES -> IN_HARVEST(q) = false; clear_bmap[q / CHUNK_PAGES] = true; q++
		:: else -> break
		od;
		q = 0
	};
	arm()
#endif
}
#endif

/* [ram_arm_dirty_log] */
inline arm() {
	k = 0;
	do
	:: k < CHUNKS -> log_clear(k); k++
	:: else -> k = 0; break
	od
}

/* [ram_skip_free_ranges, under bitmap_mutex] */
inline skip_free() {
	k = 0;
	do
	:: k < PAGES ->
		if
		:: report[k] ->
#ifdef CLEAR_AT_HINT
			/* [qemu_guest_free_page_hint] */
			log_clear(k / CHUNK_PAGES);
#endif
			d_step { bmap[k] = false; printf("QEMU takes page %d off bmap\n", k) }
		:: else
		fi;
		k++
	:: else -> k = 0; break
	od
}

/* An answer is used only once. */
inline forget_report() {
	d_step {
		report_generation = 0;
		q = 0;
		do
		:: q < PAGES -> report[q] = false; q++
		:: else -> break
		od;
		q = 0
	}
}

inline ask() {
	d_step { event = generation; printf("QEMU asks, request %d\n", generation) }
}

proctype migration() {
	byte nth = 0, at, k, q;
	bool synced;
#if defined(LATER_ROUND) || defined(LATER_ROUND_ARM)
	bool later, asked; /* there was a sync in the iterations; the guest was asked */
#endif

next:
	atomic {
		nth < MIGRATIONS; /* else the process ends here */
		nth++;
		printf("migration %d begins, to a fresh destination\n", nth);
#ifdef COUNTED
		generation = 1;
#else
		generation = nth;
#endif
		/* [ram_list_init_bitmaps] */
		q = 0;
		do
		:: q < PAGES -> bmap[q] = true; FRESH(q); q++
		:: else -> break
		od;
		q = 0
	};
	log_start(); /* [memory_global_dirty_log_start] */
	sync();

	/* [migration_free_page_hints, exchange] */
	if
	:: goto iterate /* no hints: for example disabled, or no driver */
	:: true
	fi;
#if defined(LATER_ROUND) || defined(LATER_ROUND_ARM)
	goto iterate;
question:
	asked = true;
#endif
#ifdef WALK_BEFORE_ARM
	ask();
#else
#if defined(ARRIVES) && !defined(WATCHED_LATE)
	sync_watched(); /* [ram_watch_ignored] */
#endif
#if !defined(CLEAR_AT_HINT) && !defined(LATER_ROUND)
	arm();
#endif
	ask();
#endif
wait:
	do
	:: ANSWERED -> break
	:: d_step { true -> printf("QEMU gives up waiting\n") }; goto iterate
	:: !synced -> sync(); synced = true
#ifdef INTROSPECT
	:: peek == ASKED -> answer_peek()
#endif
	od;
#ifdef WALK_BEFORE_ARM
	arm();
#endif
	if
	:: !synced -> sync(); synced = true
	:: true
	fi;
#ifdef WATCHED_LATE
	sync_watched();
#endif
	if
#ifndef NO_SYNC_COUNT
	:: synced -> printf("hints dropped: late\n")
	:: !synced -> skip_free()
#else
	:: true -> skip_free()
#endif
	fi;
	forget_report();

	/* [migration_iteration_run -> ram_save_iterate] */
iterate:
	synced = false;
#ifdef ARRIVES
	do
	:: sync()
	:: break
	od;
#endif
#ifndef AT_ONCE
	do
	EACH_PAGE(SEND_STEPS)
	:: MAY_SYNC -> sync(); LATER
	:: break
	:: goto cancelled
#if defined(LATER_ROUND) || defined(LATER_ROUND_ARM)
	:: later && !asked -> goto question
#endif
#ifdef LATE_ACCEPTED
	:: ANSWERED -> skip_free(); forget_report()
#endif
	od;
#endif

	/* [migration_completion: vm_stop, ram_save_complete] */
	running = false; /* each CPU finishes its instruction */
	atomic { IDLE(0) && IDLE(1) && LOGGED(0) && LOGGED(1) -> printf("guest stopped\n") };
#ifdef LIST_EARLY
	list();
#endif
	sync();
#if defined(ARRIVES) && !defined(WATCHED_ONCE)
	sync_watched();
#endif
#ifdef POSTCOPY
#ifndef LIST_EARLY
	list();
#endif
	postcopy();
#else
	d_step {
		q = 0;
		do
		:: q < PAGES ->
			if
			:: bmap[q] -> SENT(q); bmap[q] = false; printf("page %d sent\n", q)
			:: else
			fi;
			q++
		:: else -> break
		od;
		q = 0;
	};
	d_step {
		do
		:: q < PAGES ->
			if
			:: MISSED(q) -> printf("LOST: a write to page %d\n", q)
			:: else
			fi;
			assert(!MISSED(q));
			q++
		:: else -> break
		od;
		q = 0;
	};
#endif
#ifndef AT_ONCE
	goto over;

	/* [ram_save_host_page: migration_bitmap_clear_dirty, then the page is read] */
send:
	log_clear(at / CHUNK_PAGES);
	bmap[at] = false;
	d_step { SENT(at); printf("page %d sent\n", at); at = 0 };
	goto iterate;

cancelled: /* [migrate_fd_cancel] */
	printf("migration cancelled\n");
#endif

over:	/* [ram_save_cleanup]; the guest runs on, at the source or destination */
	log_stop();
	d_step {
		q = 0;
		do
		:: q < PAGES -> bmap[q] = false; stale[q] = false; clear_bmap[q / CHUNK_PAGES] = false; q++
		:: else -> break
		od;
		q = 0;
#if defined(LATER_ROUND) || defined(LATER_ROUND_ARM)
		later = false; asked = false;
#endif
#ifdef LIVENESS
		completed = true;
#endif
#ifdef POSTCOPY
		there = false;
#endif
		running = true
	};
end:
	goto next
}
