/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The source that reads guest memory from the host. The guest's struct pages are
 * in its memory: MEMMAP is the page that contains them. A store to it is logged
 * like any other. The host reads it field by field while the guest runs.
 *
 * The model has two struct pages: that of page 0, and that of the page before
 * it, called the head. If both pages are free they form a block of order 1. The
 * contents of the head page are not modelled, as they would behave like page 0.
 *
 * The faults, each a -D:
 *
 *   PEEK_LEFT_OUT    the host relies on what it read, without a peek
 *   PEEK_FIRST       the peek comes before the read
 *   PEEK_CONSUMES    the peek clears the bits in the log that it reads
 *   PEEK_NO_KICK     KVM's log is read before the bit of a store is set
 *   READ_BEFORE_ARM  the host reads before it is asked
 *   RESET_NOT_TOLD   the host relies on struct pages from before a reset
 *
 * With RESETS the machine is reset once, at any time. The struct pages stay as
 * they are, and the CPUs write to any page without changing them.
 */

#define MEMMAP 1

bool head_taken; /* the head is allocated */

/* PageBuddy() of both, and page_private() of the head. This is the order of its
 * block if it is free. If not, the owner of the page uses it. */
bool head_flag = true;
bool head_order = true;
bool flag_0;

/* The CPU + 1 that holds zone->lock, or 0, and the next store of this CPU. */
#define SET_HEAD_ORDER 1
#define SET_HEAD_FLAG 2
#define SET_FLAG_0 3
byte holder, next_store;

/* The state of a peek in the hint window; 0: there is none. */
#define ASKED 1
#define CONSTANT 2
#define WRITTEN 3
byte peek;

#ifdef RESETS
bool reset; /* boot of the hint window: the machine was reset */
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

/* [del_page_from_free_list, expand, __free_one_page]. When a block is allocated,
 * its order stays in the head: the owner may have the same value there. */
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

/* A CPU writes a page that is allocated. MEMMAP is written, too: it has further
 * fields. */
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

/* The host reads from one of the struct pages whether page 0 is free. It reads
 * the fields one by one, in either order. */
inline look() {
	if
	:: READ_HEAD_ORDER; READ_HEAD_FLAG
	:: READ_HEAD_FLAG; READ_HEAD_ORDER
	:: d_step { free = flag_0; both = true; printf("host reads the flag of page 0: %d\n", free) }
	fi
}

/* [device/window: Peek]. A peek without an answer ends with the request. */
inline look_for_writes() {
	d_step { peek = ASKED; printf("host peeks\n") };
end_of_request:
	d_step { peek > ASKED -> written = written || (peek == WRITTEN && !sure); sure = true; peek = 0 }
}

/* [device/introspect in fbppd]. It may read late and slowly. It peeks for what it
 * has read. It may peek once more, as it does for further blocks, which are not
 * modelled. */
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
