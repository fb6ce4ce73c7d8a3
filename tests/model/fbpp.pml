/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A guest, its dirty log and a migration with free page hints. The model is so
 * small that every interleaving can be checked.
 *
 * Take any page that the guest has written since it allocated it. When a
 * migration completes, the destination must have the same contents of this page
 * as the source. And no process may wait for ever.
 *
 * docs/model.md explains the model. Steps name in brackets the function that
 * they stand for: of QEMU 10.0 with our series, of Linux, or of fbpp.
 *
 * A variant is a set of -D: one log, and at most one fault. A fault is an order
 * of steps, or a missing check, that docs/design.md rejects. The files that are
 * included list the faults.
 *
 *   LOG_KVM     KVM_CLEAR_DIRTY_LOG with KVM_DIRTY_LOG_INITIALLY_SET
 *   LOG_EAGER   KVM_GET_DIRTY_LOG that clears and protects by itself
 *   LOG_RING    KVM's dirty ring
 *   LOG_TCG     QEMU's own flags, which the slow path of a store sets
 *
 *   INTROSPECT  the host reads guest memory and peeks; there is no agent
 *   AT_ONCE     the last sync follows the answer directly
 *   ARRIVES     no page is sent: those of bmap arrive from a pool; with AT_ONCE
 *   POSTCOPY    the guest goes on at the destination before its pages are there
 *
 *   HANDOVER    another model: RAM stays where it is, and its lease moves
 */

#ifdef HANDOVER
#include "handover.pml"
#else

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

/* The guest's pages. A page that is TAKEN is allocated but not written yet: its
 * contents do not matter. */
#define FREE 0
#define TAKEN 1
#define USED 2
#ifdef INTROSPECT
byte page[PAGES] = { FREE, USED }; /* the second is the memmap */
#else
byte page[PAGES];
#endif

/* The page at the destination differs from the source. Each store writes a new
 * value, so one bit is enough to describe the contents. */
bool stale[PAGES];

bool running = true; /* the guest's CPUs [runstate_is_running] */

/* RAMBlock.bmap, and RAMBlock.clear_bmap of system/physmem.c's RAM */
bool bmap[PAGES];
bool clear_bmap[CHUNKS];

/* The request: its number, the event that carries it to the agent, and the
 * report that comes back [device/request.go, hw/virtio/fbpp-window.c]. */
byte generation;
byte event;
byte report_generation;
bool report[PAGES];

/* An answer is used for its own request only. [fbpp_window_wait, device/driver:
 * message] */
#ifdef NO_GENERATION
#define ANSWERED (report_generation != 0)
#else
#define ANSWERED (report_generation == generation)
#endif

#ifdef LIVENESS
bool completed; /* the migration */
#endif

#ifdef INIT_ON_FREE
/* The guest zeroes pages when it frees them, and relies on that. */
bool zero_there[PAGES]; /* the page at the destination is zero */
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
#ifdef POSTCOPY
#define SENT(p) stale[p] = false; PLACED(p)
#else
#define SENT(p) stale[p] = false
#endif
#define FRESH(p) stale[p] = true
#define MISSED(p) (page[p] == USED && stale[p])
#endif

#if PAGES == 2
#define PRINT_SYNC printf("sync: bmap is %d%d\n", bmap[0], bmap[1])
#elif PAGES == 3
#define PRINT_SYNC printf("sync: bmap is %d%d%d\n", bmap[0], bmap[1], bmap[2])
#endif

#if (defined(INTROSPECT) || defined(ARRIVES)) && !defined(LOG_TCG)
/* Bits that were read from KVM's log and are not in bmap yet: the next sync
 * moves them [ram_list.dirty_memory[DIRTY_MEMORY_MIGRATION], TCG's log]. */
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

#ifdef POSTCOPY
#include "postcopy.pml"
#define AT_SOURCE !there
#else
#define AT_SOURCE true
#endif

#ifdef INTROSPECT
#include "introspect.pml"
#else
#include "guest.pml"
#endif
#include "migration.pml"

#ifdef LIVENESS
/* This has to be checked with weak fairness and MIGRATIONS=1. */
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
#endif /* HANDOVER */
