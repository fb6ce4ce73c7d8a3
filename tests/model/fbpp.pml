/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A guest, its dirty log and a migration with free page hints, small enough
 * to look at every interleaving.
 *
 * What is asked for: when a migration completes, the destination holds of each
 * page that the guest has written since it allocated it what the source holds;
 * and nobody waits for ever.
 *
 * docs/model.md says how to read this. Each step names in brackets the function
 * that it stands for: of QEMU 10.0 with our series, of Linux, or of fbpp.
 *
 * A variant is a set of -D: one log, and at most one of the faults below, each
 * of which is an order or a missing guard that docs/design.md rejects.
 *
 *   LOG_KVM     KVM_CLEAR_DIRTY_LOG with KVM_DIRTY_LOG_INITIALLY_SET
 *   LOG_EAGER   KVM_GET_DIRTY_LOG that clears and protects by itself
 *   LOG_RING    KVM's dirty ring
 *   LOG_TCG     QEMU's own flags, looked at by the slow path of a store
 *
 *   INTROSPECT  the host looks, and peeks, instead of the agent
 *   AT_ONCE     the last sync comes next after the answer
 */

#ifndef PAGES
#define PAGES 2
#endif
#ifndef CHUNK_PAGES
#define CHUNK_PAGES 1 /* pages for one bit of RAMBlock.clear_bmap */
#endif
#ifndef MIGRATIONS
#define MIGRATIONS 2
#endif
#define CPUS 2
#define CHUNKS ((PAGES + CHUNK_PAGES - 1) / CHUNK_PAGES)

#if PAGES == 2
#define EACH_PAGE(F) F(0) F(1)
#elif PAGES == 3
#define EACH_PAGE(F) F(0) F(1) F(2)
#endif

/* The guest's pages. A page that is TAKEN was allocated, and nobody has
 * written it yet: nobody misses what is in it. */
#define FREE 0
#define TAKEN 1
#define USED 2
#ifdef INTROSPECT
byte page[PAGES] = { FREE, USED }; /* the second is the memmap */
#else
byte page[PAGES];
#endif

/* The destination does not hold what the source holds. What a store writes is
 * always new, so that one bit says all about the contents. */
bool stale[PAGES];

bool running = true; /* the guest's CPUs [runstate_is_running] */

/* RAMBlock.bmap, and RAMBlock.clear_bmap of system/physmem.c's RAM */
bool bmap[PAGES];
bool clear_bmap[CHUNKS];

/* The request: its number, the event that carries it to the agent, and the
 * report that comes back [device/exchange.go, hw/virtio/fbpp-window.c]. */
byte generation;
byte event;
byte report_generation;
bool report[PAGES];

#ifdef LIVENESS
bool completed; /* the migration */
#endif

#ifdef INIT_ON_FREE
/* The guest zeroes what it frees, and takes free pages for zero. */
bool zero_there[PAGES]; /* the destination holds zeroes */
#define STORED(p) stale[p] = true
#define MAY_FREE(c, p) MAY_STORE(c, p)
#define ZEROED(p) stale[p] = !zero_there[p]
#define SENT(p) stale[p] = false; zero_there[p] = (page[p] != USED)
#define FRESH(p) zero_there[p] = true; stale[p] = (page[p] == USED)
#define MISSED(p) stale[p]
#else
#define STORED(p) stale[p] = true
#define MAY_FREE(c, p) NOT_IN_STORE(p)
#define ZEROED(p) skip
#define SENT(p) stale[p] = false
#define FRESH(p) stale[p] = true
#define MISSED(p) (page[p] == USED && stale[p])
#endif

#if PAGES == 2
#define PRINT_SYNC printf("sync: bmap is %d%d\n", bmap[0], bmap[1])
#elif PAGES == 3
#define PRINT_SYNC printf("sync: bmap is %d%d%d\n", bmap[0], bmap[1], bmap[2])
#endif

#if defined(INTROSPECT) && !defined(LOG_TCG)
/* What is harvested from KVM's log waits for the next sync
 * [ram_list.dirty_memory[DIRTY_MEMORY_MIGRATION]; for TCG that is the log]. */
#define HARVEST
bool harvest[PAGES];
#define HARVESTED(p, bit) harvest[p] = harvest[p] || bit
#define PRINT_HARVEST printf("the log is read\n")
#else
#define HARVESTED(p, bit) bmap[p] = bmap[p] || bit; clear_bmap[p / CHUNK_PAGES] = true
#define PRINT_HARVEST PRINT_SYNC
#endif

#if defined(LOG_KVM)
#include "log_kvm.pml"
#elif defined(LOG_EAGER)
#include "log_eager.pml"
#elif defined(LOG_RING)
#include "log_ring.pml"
#elif defined(LOG_TCG)
#include "log_tcg.pml"
#endif

#ifdef INTROSPECT
#include "introspect.pml"
#else
#include "guest.pml"
#endif
#include "migration.pml"

#ifdef LIVENESS
/* To be checked with weak fairness, and MIGRATIONS=1. */
ltl completes { <> completed }
#endif

init {
	atomic {
		run cpu(0);
		run cpu(1);
#ifdef INTROSPECT
		run source();
#else
		run agent();
#endif
#ifdef LOG_RING
		run reaper();
#endif
		run migration();
	}
}
