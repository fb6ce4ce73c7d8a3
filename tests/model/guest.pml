/* SPDX-License-Identifier: Apache-2.0 */

/* The guest: two CPUs that allocate, write and free pages in any order, and the
 * agent, which looks for free pages when it is asked. */

/* Allocate and free [rmqueue, __free_one_page: both under zone->lock], and store.
 * If the log protects the page, LOG_STEPS come before the store. */
#define PAGE_STEPS(p) \
	:: d_step { running && IDLE(c) && page[p] == FREE -> page[p] = TAKEN; \
		printf("cpu %d allocates page %d\n", c, p) } \
	:: d_step { running && IDLE(c) && page[p] != FREE && MAY_FREE(c, p) -> page[p] = FREE; ZEROED(p); \
		printf("cpu %d frees page %d\n", c, p) } \
	:: d_step { (running || !IDLE(c)) && page[p] != FREE && MAY_STORE(c, p) -> \
		page[p] = USED; STORED(p); STORE_DONE(c, p); \
		printf("cpu %d writes page %d\n", c, p) } \
	LOG_STEPS(c, p)

proctype cpu(byte c) {
end:
	do
	EACH_PAGE(PAGE_STEPS)
#ifdef POSTCOPY
	EACH_PAGE(THERE_STEPS)
#endif
	od
}

/* fbpp-agent. Here each page is a zone of its own. The agent looks at a page in
 * one step [walk_zones_in_node, with zone->lock held]. The guest runs between two
 * such steps. The agent may be slow, and may die at any point. */
proctype agent() {
	byte asked, p;
	bool found[PAGES];
end:
	do
	:: d_step { event != 0 -> asked = event; event = 0; /* [driver-ebpf/agent: REPORT_FREE] */
		printf("agent gets request %d\n", asked) }
		p = 0;
		do
		:: d_step { p < PAGES && AT_SOURCE -> found[p] = (page[p] == FREE);
			if
			:: found[p] -> printf("agent sees page %d free\n", p)
			:: else
			fi;
			p++ }
		:: p == PAGES -> break
		:: goto dead
		od;
		/* [device/driver: drainReports] A report may wait in reportq before. */
		atomic {
			report_generation = asked;
			p = 0;
			do
			:: p < PAGES -> report[p] = found[p]; found[p] = false; p++
			:: else -> break
			od;
			printf("agent reports for request %d\n", asked);
			asked = 0; p = 0
		};
		goto end;
dead:		/* SIGKILL. The next agent knows nothing of this request. */
		atomic {
			p = 0;
			do
			:: p < PAGES -> found[p] = false; p++
			:: else -> break
			od;
			printf("agent dies\n");
			asked = 0; p = 0
		}
	od
}
