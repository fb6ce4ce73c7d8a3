/* SPDX-License-Identifier: Apache-2.0 */

/* The guest: two CPUs that allocate, write and free as they like, and the
 * agent, which looks when it is asked. */

/* [rmqueue, __free_one_page: both under zone->lock] and a store. Where the log
 * protects the page, a CPU takes the log's way first: LOG_STEPS. */
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
	od
}

/* fbpp-agent. Each page is a zone of its own here: it is looked at in one step
 * [walk_zones_in_node, with zone->lock held], and the guest runs on between two
 * such steps. The agent may be as slow as it likes, and die at any point. */
proctype agent() {
	byte asked, p;
	bool found[PAGES];
end:
	do
	:: d_step { event != 0 -> asked = event; event = 0; /* [driver-ebpf/agent: REPORT_FREE] */
		printf("agent gets request %d\n", asked) }
		p = 0;
		do
		:: d_step { p < PAGES -> found[p] = (page[p] == FREE);
			if
			:: found[p] -> printf("agent sees page %d free\n", p)
			:: else
			fi;
			p++ }
		:: p == PAGES -> break
		:: goto dead
		od;
		/* [drainReports, after a wait in reportq of any length] */
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
