/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Postcopy. The guest goes on at the destination before its pages are there. What
 * the source still has to send it lists once, for the discard. The destination takes
 * for zero what is neither received nor listed. The faults, each a -D:
 *
 *   LIST_EARLY        the list is made before the last sync
 *   LIST_OVERTAKES    pages of precopy are on their way when the list is used
 *   LIST_IGNORED      what is not received is taken for zero
 *   HINT_AFTER_LIST   an answer is used after the list was made
 *   RECOVERY_FORGETS  what was on its way when the network failed is not sent again
 *   ARRIVAL_REPLACES  a page that comes replaces what is there
 *
 * RECOVERY_RESENDS is no fault: after a failure the source sends also what the
 * destination has taken for zero.
 */

bool there;           /* the guest runs at the destination */
bool here[PAGES];     /* the page is mapped at the destination, so nobody faults on it */
bool own[PAGES];      /* it was written there */
bool received[PAGES]; /* RAMBlock.receivedmap */
bool listed[PAGES];   /* [postcopy_send_discard_bm_ram] */
bool skipped[PAGES];  /* RAMBlock.skippedmap */
bool way[PAGES];      /* sent, and on its way */
bool failed;          /* the network; once is enough */

/* In precopy a page is there before whatever the stream has next. */
#ifdef LIST_OVERTAKES
#define PLACED(p) way[p] = true
#else
#define PLACED(p) received[p] = true; here[p] = true
#endif

/* A page that is used and was not written at the destination has the source's
 * contents, or else it was lost. */
#define READ_WRONG(p) (page[p] == USED && !own[p] && stale[p])

/* What CPUs do at the destination. A fault has the page placed as zero
 * [postcopy_request_page], or sent by the source. As the source sends pages in any
 * order, a request is no step. */
#define THERE_STEPS(p) \
	:: d_step { there && page[p] == FREE -> page[p] = TAKEN; \
		printf("cpu %d allocates page %d at the destination\n", c, p) } \
	:: d_step { there && page[p] != FREE -> page[p] = FREE; \
		printf("cpu %d frees page %d at the destination\n", c, p) } \
	:: d_step { there && here[p] && page[p] != FREE -> page[p] = USED; own[p] = true; \
		printf("cpu %d writes page %d at the destination\n", c, p) } \
	:: d_step { there && !here[p] && page[p] != FREE && skipped[p] -> \
		here[p] = true; stale[p] = true; \
		printf("cpu %d faults on page %d, which is made zero\n", c, p) } \
	:: d_step { there && here[p] && page[p] == USED -> READ(p) }

#define READ(p) \
	if \
	:: READ_WRONG(p) -> printf("LOST: a write to page %d\n", p) \
	:: else \
	fi; \
	assert(!READ_WRONG(p))

/* [ram_postcopy_send_discard_bitmap] */
inline list() {
	d_step {
		q = 0;
		do
		:: q < PAGES -> listed[q] = bmap[q]; q++
		:: else -> break
		od;
		q = 0;
		printf("the source lists what it still has to send\n")
	}
}

/* The destination discards what is listed, and knows the rest
 * [ram_discard_range, ram_skippedmap_complete]. */
inline use_list() {
	d_step {
		do
		:: q < PAGES ->
			if
			:: listed[q] -> here[q] = false; received[q] = false; stale[q] = true
			:: else
			fi;
#ifdef LIST_IGNORED
			skipped[q] = !received[q];
#else
			skipped[q] = !received[q] && !listed[q];
#endif
			q++
		:: else -> break
		od;
		q = 0;
		there = true;
		printf("the guest goes on at the destination\n")
	}
}

/* The source sends pages in order, or as they are requested [ram_save_host_page].
 * Where a page is already, none is placed [postcopy_place_page: EEXIST]. */
#ifdef ARRIVAL_REPLACES
#define PAGE_ARRIVES(p) stale[p] = own[p]; own[p] = false
#else
#define PAGE_ARRIVES(p) stale[p] = here[p] && stale[p]
#endif
#define POSTCOPY_STEPS(p) \
	:: d_step { bmap[p] -> bmap[p] = false; way[p] = true; \
		printf("page %d sent\n", p) } \
	:: d_step { way[p] -> way[p] = false; received[p] = true; PAGE_ARRIVES(p); here[p] = true; \
		printf("page %d arrives\n", p) }

/* [postcopy_pause, ram_dirty_bitmap_reload] */
inline recover() {
	d_step {
		failed = true;
		do
		:: q < PAGES ->
			way[q] = false;
#ifndef RECOVERY_FORGETS
#ifdef RECOVERY_RESENDS
			bmap[q] = !received[q];
#else
			bmap[q] = !received[q] && !skipped[q];
#endif
#endif
			q++
		:: else -> break
		od;
		q = 0;
		printf("the network fails, and the migration recovers\n")
	}
}

#define TO_COME(p) (bmap[p] || way[p])

/* What was never placed is a hole at the end, and reads as zero
 * [postcopy_ram_incoming_cleanup]. */
inline postcopy() {
	use_list();
	do
	EACH_PAGE(POSTCOPY_STEPS)
	:: !failed -> recover()
#ifdef HINT_AFTER_LIST
	:: ANSWERED -> skip_free(); forget_report()
#endif
	:: !TO_COME(0) && !TO_COME(1) -> break
	od;
	printf("postcopy ends\n");
	d_step {
		do
		:: q < PAGES -> READ(q); q++
		:: else -> break
		od;
		q = 0
	}
}
