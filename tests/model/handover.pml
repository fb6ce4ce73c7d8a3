/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A hand-over of RAM that stays in a pool, and its lease (docs/handover.md). The source
 * tries twice, each time with another destination. A new VM wants the pool, too. Each
 * of them may die at any step. With LOCAL a destination may have memory of its own, which
 * arrives from the pool. The faults, each a -D:
 *
 *   SWAP_IN_TWO       the word is read, and then written
 *   NO_TAKING_BACK    after a failure the source goes on without a look at the lease
 *   ANY_OFFER         a destination takes an offer of another epoch than its own
 *   STOP_LATE         the source offers before it stops
 *   FROM_THE_DEAD     the source takes from a destination that has died
 *   TIME_OUT          a new VM takes from a holder that has not been heard of
 *   NO_CHALLENGE      the source does not ask whether the destination has its file
 *   READ_EARLY        memory arrives from the pool while the source runs
 *   PUNCH_EARLY       the pool is emptied when memory has arrived, and not taken
 */

#define FREE 0
#define HELD 1
#define OFFERED 2

#define SOURCE 0
#define NEW 3 /* 1 and 2 are the destinations */
#define VMS 4
#define WRITES 3
#define NONE 255
#define GONE 100

byte epoch = 1;       /* the word of the lease */
byte state = HELD;
byte holder = SOURCE; /* who has made the word what it is */

bool alive[VMS];
bool runs[VMS];
bool other[VMS];      /* it maps another file */
byte ram;             /* what is in the pool: it counts writes */
byte devices[VMS];    /* the RAM that the state of the devices fits to */
bool apart[VMS];      /* it has memory of its own */
byte got[VMS];        /* what has arrived in it, and was written since, or NONE */

byte sent[VMS];       /* the epoch of the offer in the stream, or NONE */
byte state_of[VMS];   /* the state of the devices in it */
bool asked[VMS];
bool answered[VMS];

#define TAKE(vm, text) \
	epoch++; state = HELD; holder = vm; printf(text)

#define MEMORY(vm) (got[vm] != NONE -> got[vm] : ram)

#define RUNNING(vm) (alive[vm] && runs[vm])
#define TWO_RUN (RUNNING(0) + RUNNING(1) + RUNNING(2) + RUNNING(3) > 1)

inline starts(vm) {
	runs[vm] = true;
	printf("VM %d runs\n", vm);
	if
	:: other[vm] -> printf("LOST: VM %d runs on another file\n", vm)
	:: !other[vm] && devices[vm] != MEMORY(vm) ->
		printf("LOST: RAM has gone on without VM %d\n", vm)
	:: !other[vm] && devices[vm] == MEMORY(vm) && TWO_RUN -> printf("LOST: two VMs run\n")
	:: else
	fi;
	assert(!other[vm] && devices[vm] == MEMORY(vm) && !TWO_RUN)
}

/* The guest writes to memory, and goes on */
#define RUN_STEPS(vm) \
	:: d_step { RUNNING(vm) && !apart[vm] && ram < WRITES -> ram++; devices[vm] = ram; \
		printf("VM %d writes\n", vm) }

/* [fast_snapshot_load_page, load_chunk, ram_lease_pool_intact; eager_thread, ram_lease_punch] */
#ifdef LOCAL
#define ARRIVAL_STEPS(vm) \
	:: d_step { RUNNING(vm) && got[vm] < WRITES -> got[vm]++; devices[vm] = got[vm]; \
		printf("VM %d writes to its own memory\n", vm) } \
	:: d_step { apart[vm] && alive[vm] && got[vm] == NONE && MAY_READ(vm) -> \
		got[vm] = ram; printf("memory arrives in VM %d\n", vm) } \
	:: d_step { got[vm] != NONE && ram != GONE && MAY_PUNCH(vm) -> \
		ram = GONE; printf("VM %d empties the pool\n", vm) }
#else
#define ARRIVAL_STEPS(vm)
#endif
#ifdef READ_EARLY
#define MAY_READ(vm) asked[vm]
#else
#define MAY_READ(vm) (armed != NONE && (state == OFFERED && epoch == armed || \
	state == HELD && epoch == armed + 1))
#endif
#ifdef PUNCH_EARLY
#define MAY_PUNCH(vm) alive[vm]
#else
#define MAY_PUNCH(vm) RUNNING(vm)
#endif

#define DIE(vm) \
	:: d_step { alive[vm] -> alive[vm] = false; printf("VM %d dies\n", vm) }; goto dead

/* [ram_leases_take, swap_word] */
inline take_offer(vm, number) {
#ifdef SWAP_IN_TWO
	if
	:: state == OFFERED && epoch == number ->
		d_step { TAKE(vm, "taken\n"); won = true }
	:: else -> won = false
	fi
#else
	skip;
	d_step {
		if
#ifdef ANY_OFFER
		:: state == OFFERED -> TAKE(vm, "taken\n"); won = true
#else
		:: state == OFFERED && epoch == number -> TAKE(vm, "taken\n"); won = true
#endif
#ifdef FROM_THE_DEAD
		:: vm == SOURCE && state == HELD && holder != SOURCE && !alive[holder] ->
			TAKE(vm, "taken from the dead\n"); won = true
#endif
		:: else -> won = false; printf("VM %d is refused\n", vm)
		fi
	}
#endif
}

proctype source() {
	byte to = 1, mine;
	bool won;

next:
	do
	RUN_STEPS(SOURCE)
	DIE(SOURCE)
	:: to < NEW -> break
	:: to == NEW -> goto dead
	od;
	/* [migration_handover_setup, migration_handover_wait] */
	skip;
	d_step { asked[to] = true; printf("migration to VM %d\n", to) };
	do
	RUN_STEPS(SOURCE)
	DIE(SOURCE)
#ifdef NO_CHALLENGE
	:: break
#else
	:: answered[to] -> break
#endif
	:: d_step { printf("failed or cancelled while the source runs\n"); to++ }; goto next
	od;
	/* [migration_switchover_start, ram_leases_offer] */
#ifndef STOP_LATE
	skip;
	d_step { runs[SOURCE] = false; printf("the source stops\n") };
#endif
	if
	DIE(SOURCE)
	:: d_step { epoch++; state = OFFERED; holder = SOURCE; mine = epoch; printf("offered\n") }
	fi;
	do
	DIE(SOURCE)
	:: d_step { sent[to] == NONE -> sent[to] = mine; state_of[to] = devices[SOURCE];
		printf("all is sent to VM %d\n", to) }
	:: break /* failed, cancelled, or cont after it has completed */
	od;
	/* [migration_handover_take_back, qmp_cont] */
#ifdef NO_TAKING_BACK
	won = true;
#else
	take_offer(SOURCE, mine);
#endif
	if
	:: won -> d_step { starts(SOURCE) }; to++; goto next
#ifdef STOP_LATE
	:: !won && runs[SOURCE] -> runs[SOURCE] = false
#endif
	:: else
	fi;
dead:
	skip
}

/* Whatever holds up the stream, a destination may use it later */
proctype destination(byte vm) {
	byte armed = NONE;
	bool won;

	alive[vm] = true;
	if
	:: other[vm] = true
#ifdef LOCAL
	:: apart[vm] = true
#endif
	:: skip
	fi;
	do
	DIE(vm)
	ARRIVAL_STEPS(vm)
#if defined(LOCAL) && !defined(READ_EARLY)
	/* [ram_lease_begin_arrival] */
	:: d_step { apart[vm] && answered[vm] && armed == NONE && state == OFFERED ->
		armed = epoch; printf("VM %d arms\n", vm) }
#endif
	:: d_step { asked[vm] && !answered[vm] && !other[vm] -> answered[vm] = true;
		printf("VM %d has the source's file\n", vm) }
	:: sent[vm] != NONE -> break
	:: sent[vm] == NONE && !alive[SOURCE] -> goto dead
	od;
	devices[vm] = state_of[vm];
	take_offer(vm, sent[vm]);
	if
	:: won -> d_step { starts(vm) }
	:: else -> goto dead
	fi;
	do
	RUN_STEPS(vm)
	DIE(vm)
	ARRIVAL_STEPS(vm)
	:: MEMORY(vm) >= WRITES -> break
	od;
dead:
	skip
}

/* [claim]: it boots, so any RAM fits */
proctype fresh() {
	byte seen;
	bool won;

	do
	:: d_step { state == HELD && !alive[holder] && !won -> seen = epoch; won = true }
#ifdef TIME_OUT
	:: d_step { state == HELD && !won -> seen = epoch; won = true }
#endif
	:: d_step { won && seen == epoch && state == HELD -> TAKE(NEW, "taken by a new VM\n");
		alive[NEW] = true; devices[NEW] = ram; starts(NEW) }; break
	:: won && (seen != epoch || state != HELD) -> break
	:: break
	od
}

init {
	atomic {
		alive[SOURCE] = true;
		runs[SOURCE] = true;
		sent[1] = NONE;
		sent[2] = NONE;
		got[0] = NONE; got[1] = NONE; got[2] = NONE; got[NEW] = NONE;
		run source();
		run destination(1);
		run destination(2);
		run fresh();
	}
}
