/* SPDX-License-Identifier: Apache-2.0
 *
 * When the adversary writes pages that it has reported as free.
 *
 * Before a migration free pages are chosen at random, some for each moment and
 * processor, which takes and writes them at that moment. The first processor
 * drives the device and strikes between its own steps; the others see where it
 * is, and strike meanwhile.
 */
#ifndef ATTACK_H
#define ATTACK_H

#include "page.h"

/* In the order in which they come. */
enum moment {
	MOMENT_NONE,
	MOMENT_EVENT,     /* the device has asked */
	MOMENT_STARTED,   /* STARTED is sent */
	MOMENT_WALK,      /* while the first processor walks; others only */
	MOMENT_WALKED,    /* the walk is over, nothing is posted */
	MOMENT_POSTED,    /* the report is in the ring, the device was not told */
	MOMENT_KICKED,
	MOMENT_PART_USED, /* the device has read a part that is not the last */
	MOMENT_LAST_USED, /* the device has read it all */
	MOMENT_AFTER,     /* AFTERS of them, each twice as long after LAST_USED */
	AFTERS = 16,
	MOMENT_CHURN = MOMENT_AFTER + AFTERS, /* all the time */
	MOMENT_BEFORE,    /* between migrations */
	MOMENTS,
};

struct attack {
	uint64_t seed;
	uint32_t used;   /* per cent of the pages that are in use when it begins */
	uint32_t strike; /* pages for each moment and processor */
	uint64_t step;   /* cycles from LAST_USED to the first AFTER */
	uint64_t churn;  /* cycles between two pages of the churn; 0: none */
	bool pairs;      /* the churn is of free pages beside one that is in use */
};

/* Ends the current attack, and prepares memory for the next migration. */
void attack_prepare(const struct attack *a, unsigned cpus);

/* The first processor is there. */
void attack_reach(enum moment m);

/* Makes the strikes whose time has come. The first processor calls it all the time. */
void attack_poll(void);

/* What another processor does from start to end. */
_Noreturn void attack_assist(unsigned cpu);

/* Ends the attack: no page changes any more. */
void attack_end(void);

/* How many pages each moment's strikes have written since the preparation. */
extern uint32_t attack_struck[MOMENTS];

#endif
