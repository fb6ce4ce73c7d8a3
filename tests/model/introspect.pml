/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The source that looks from the host. What the guest knows of its pages stands
 * in its memory, too: MEMMAP is a page of struct pages, and a store there is
 * logged like any other. The host reads it field by field while the guest runs.
 *
 * Two of the struct pages count: that of page 0, and that of the page before
 * it, called the head, with which page 0 makes up a block of order 1 when both are
 * free. What is in the head itself is not looked at: it fares as page 0 does.
 *
 * The faults, each a -D:
 *
 *   PEEK_LEFT_OUT    what was read counts
 *   PEEK_FIRST       the peek comes before the read
 *   PEEK_CONSUMES    the peek takes out of the log what it tells
 *   PEEK_NO_KICK     KVM's log is read while a store's bit is under way
 *   READ_BEFORE_ARM  the host has read before it is asked
 *   RESET_NOT_TOLD   the host takes what a reset left in memory for the system
 *
 * RESETS has the machine reset once, at any time: the struct pages stay as they
 * are, and what runs then writes to any page without a word in them.
 */

#define MEMMAP 1

bool head_taken; /* somebody has the head */

/* PageBuddy() of both, and page_private() of the head: the order of its block
 * if it is free, and its owner's if it is not. */
bool head_flag = true;
bool head_order = true;
bool flag_0;

/* Who holds zone->lock, and the next store of its holder. */
#define SET_HEAD_ORDER 1
#define SET_HEAD_FLAG 2
#define SET_FLAG_0 3
byte holder, next_store;

/* A peek, as the hint window carries it. */
#define ASKED 1
#define CONSTANT 2
#define WRITTEN 3
byte peek;

#ifdef RESETS
bool reset; /* the boot that the hint window counts */
#define DEAD reset
#define RESET_STEPS(c) \
	:: d_step { running && !reset -> reset = true; printf("the machine is reset\n") }
#else
#define DEAD false
#define RESET_STEPS(c)
#endif

/* A step of the allocator is a store to MEMMAP. */
#define MAY_STEP(c) (!DEAD && (running || !IDLE(c)) && MAY_STORE(c, MEMMAP))
#define BEGINS(c) (MAY_STEP(c) && holder == 0)
#define GOES_ON(c, what) (MAY_STEP(c) && holder == c + 1 && next_store == what)
#define WROTE(c) STORED(MEMMAP); STORE_DONE(c, MEMMAP)
#define ENDS holder = 0; next_store = 0
#define THEN(c, what) holder = c + 1; next_store = what

/* [del_page_from_free_list, expand, __free_one_page]. The order of a block that
 * is taken stays in the head, as what its owner has there. */
#define ALLOCATOR_STEPS(c) \
	:: d_step { BEGINS(c) && head_flag && head_order -> WROTE(c); \
		head_flag = false; head_taken = true; page[0] = TAKEN; \
		printf("cpu %d allocates both: clears the head's flag\n", c) } \
	:: d_step { BEGINS(c) && head_flag -> WROTE(c); \
		head_flag = false; head_taken = true; \
		printf("cpu %d allocates the head: clears its flag\n", c); \
		if \
		:: head_order -> THEN(c, SET_FLAG_0) \
		:: else \
		fi } \
	:: d_step { BEGINS(c) && flag_0 -> WROTE(c); \
		flag_0 = false; page[0] = TAKEN; \
		printf("cpu %d allocates page 0: clears its flag\n", c) } \
	:: d_step { BEGINS(c) && head_taken -> WROTE(c); \
		head_taken = false; \
		if \
		:: flag_0 -> flag_0 = false; THEN(c, SET_HEAD_ORDER); \
			printf("cpu %d frees the head: clears the flag of page 0, to merge them\n", c) \
		:: else -> head_order = false; THEN(c, SET_HEAD_FLAG); \
			printf("cpu %d frees the head: its order is 0\n", c) \
		fi } \
	:: d_step { BEGINS(c) && page[0] != FREE && MAY_FREE(c, 0) -> WROTE(c); \
		page[0] = FREE; \
		if \
		:: head_flag -> head_flag = false; THEN(c, SET_HEAD_ORDER); \
			printf("cpu %d frees page 0: clears the head's flag, to merge them\n", c) \
		:: else -> flag_0 = true; \
			printf("cpu %d frees page 0: sets its flag\n", c) \
		fi } \
	:: d_step { GOES_ON(c, SET_HEAD_ORDER) -> WROTE(c); \
		head_order = true; THEN(c, SET_HEAD_FLAG); \
		printf("cpu %d sets the head's order to 1\n", c) } \
	:: d_step { GOES_ON(c, SET_HEAD_FLAG) -> WROTE(c); \
		head_flag = true; ENDS; \
		printf("cpu %d sets the head's flag\n", c) } \
	:: d_step { GOES_ON(c, SET_FLAG_0) -> WROTE(c); \
		flag_0 = true; ENDS; \
		printf("cpu %d sets the flag of page 0\n", c) }

/* A CPU writes a page that somebody has; MEMMAP has more fields than those. */
#define STORE_STEPS(p) \
	:: d_step { (running || !IDLE(c)) && (DEAD || page[p] != FREE) && MAY_STORE(c, p) -> \
		page[p] = USED; STORED(p); STORE_DONE(c, p); \
		printf("cpu %d writes page %d\n", c, p) } \
	LOG_STEPS(c, p)

proctype cpu(byte c) {
end:
	do
	ALLOCATOR_STEPS(c)
	RESET_STEPS(c)
	EACH_PAGE(STORE_STEPS)
	od
}

#define READ_HEAD_ORDER d_step { both = head_order; \
	printf("host reads the head's order: %d\n", both) }
#define READ_HEAD_FLAG d_step { free = head_flag; \
	printf("host reads the head's flag: %d\n", free) }

/* The host asks either struct page whether page 0 is free. The fields come one
 * by one, in either order. */
inline look() {
	if
	:: READ_HEAD_ORDER; READ_HEAD_FLAG
	:: READ_HEAD_FLAG; READ_HEAD_ORDER
	:: d_step { free = flag_0; both = true; printf("host reads the flag of page 0: %d\n", free) }
	fi
}

/* [device/window: Peek]. One that is not answered ends with the request. */
inline look_for_writes() {
	d_step { peek = ASKED; printf("host peeks\n") };
end_of_request:
	d_step { peek > ASKED -> written = written || (peek == WRITTEN && !sure); sure = true; peek = 0 }
}

/* [introspect in fbppd]. It reads as late and as slowly as it likes. It peeks
 * for what it has read, and perhaps once more, for other blocks of which there
 * are none here. */
proctype source() {
	byte asked;
	bool free, both, written, sure, gone;
end:
#ifdef READ_BEFORE_ARM
	look();
end_of_wait:
#endif
	d_step { event != 0 -> asked = event; event = 0; printf("host gets request %d\n", asked) };
#if defined(RESETS) && !defined(RESET_NOT_TOLD)
	d_step { gone = reset; printf("host knows of a reset: %d\n", gone) };
#endif
#ifdef PEEK_FIRST
	look_for_writes();
#endif
#ifndef READ_BEFORE_ARM
	look();
#endif
#if !defined(PEEK_LEFT_OUT) && !defined(PEEK_FIRST)
	look_for_writes();
	if
	:: look_for_writes()
	:: true
	fi;
#endif
	d_step {
		report_generation = asked;
		report[0] = free && both && !written && !gone;
		printf("host answers: free is %d\n", report[0]);
		asked = 0; free = false; both = false; written = false; sure = false; gone = false
	}
}
