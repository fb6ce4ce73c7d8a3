/* SPDX-License-Identifier: Apache-2.0 */
#include "attack.h"

#define MAX_PAGES (256u << 20 >> 12)

uint32_t attack_struck[MOMENTS];

static struct attack plan;
static unsigned cpus;
static uint32_t chosen[MAX_PAGES] NOT_ZEROED; /* free pages in random order */
static uint32_t chosen_count;
static uint32_t share;             /* pages for each moment and processor */

/* Pairs of a free page of even number and a page in use after it. They are close
* together, so that most of the table is not written. */
#define PAIRS_WITHIN 1024u
#define PAIRS_APART  8u
static uint32_t pairs[PAIRS_WITHIN / PAIRS_APART];
static uint32_t pair_count;

static uint32_t active;        /* whether an attack goes on */
static uint32_t resting;       /* processors that know that they do not */
static uint32_t reached;       /* enum moment of the first processor */
static uint64_t last_used;     /* when LAST_USED was, in cycles */

static struct { /* by processor */
	unsigned struck;    /* the latest moment that it has struck at */
	uint32_t turn;      /* in the pages of its churn */
	uint64_t next_turn; /* in cycles */
} own[MAX_CPUS];

static uint64_t random_state;

static uint64_t random(void)
{
	/* xorshift64* */
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 2685821657736338717ull;
}

static uint32_t below(uint32_t n)
{
	return (random() >> 32) * n >> 32;
}

/* Frees or takes blocks at random places until so many per cent of the pages
 * that are not lent are in use. */
static void balance(uint32_t used_percent)
{
	uint32_t free = page_count(PAGE_FREE);
	uint32_t want_free = (uint64_t)(free + page_count(PAGE_USED)) * (100 - used_percent) / 100;

	while (free != want_free) {
		unsigned order = below(7);
		uint32_t pfn = page_first + below(page_end - page_first);

		pfn = pfn >> order << order;
		for (uint32_t i = 0; i < 1u << order && free != want_free; i++, pfn++) {
			if (pfn < page_first || pfn >= page_end)
				continue;
			if (free < want_free && pages[pfn].state == PAGE_USED) {
				page_give(pfn);
				free++;
			} else if (free > want_free && page_take(pfn, MOMENT_BEFORE)) {
				free--;
			}
		}
	}
}

/* Puts the free pages into random order. */
static void choose(void)
{
	chosen_count = 0;
	for (uint32_t pfn = page_first; pfn < page_end; pfn++)
		if (pages[pfn].state == PAGE_FREE)
			chosen[chosen_count++] = pfn;
	for (uint32_t i = chosen_count; i > 1; i--) {
		uint32_t j = below(i), t = chosen[j];

		chosen[j] = chosen[i - 1];
		chosen[i - 1] = t;
	}
}

/* Makes pairs. Their number is a multiple of the number of other processors. */
static void make_pairs(void)
{
	uint32_t start = page_first + below(page_end - page_first - PAIRS_WITHIN);
	uint32_t pfn = (start + 1) & ~1u;

	pair_count = 0;
	for (unsigned i = 0; i < PAIRS_WITHIN / PAIRS_APART; i++, pfn += PAIRS_APART) {
		if (pages[pfn].state == PAGE_USED)
			page_give(pfn);
		page_take(pfn + 1, MOMENT_BEFORE);
		if (pages[pfn].state == PAGE_FREE && pages[pfn + 1].state == PAGE_USED)
			pairs[pair_count++] = pfn;
	}
	pair_count -= pair_count % (cpus - 1);
}

void attack_prepare(const struct attack *a, unsigned n)
{
	attack_end();
	plan = *a;
	cpus = n;
	random_state = a->seed * 2 + 1;
	balance(a->used);
	if (a->pairs)
		make_pairs();
	choose();
	/* At least half of the free pages stay free. */
	share = chosen_count / 2 / (MOMENTS * cpus);
	if (share > a->strike)
		share = a->strike;
	for (unsigned i = 0; i < MOMENTS; i++)
		attack_struck[i] = 0;
	for (unsigned i = 0; i < cpus; i++)
		own[i].struck = MOMENT_NONE;
	store(&reached, MOMENT_NONE);
	store(&resting, 0);
	store(&active, 1);
}

/* The pages that belong to a moment and a processor. */
static const uint32_t *pages_of(unsigned moment, unsigned cpu)
{
	return chosen + (moment * cpus + cpu) * share;
}

static void strike(unsigned moment, unsigned cpu)
{
	const uint32_t *p = pages_of(moment, cpu);
	uint32_t n = 0;

	for (uint32_t i = 0; i < share; i++)
		n += page_take(p[i], moment);
	__atomic_fetch_add(&attack_struck[moment], n, __ATOMIC_RELAXED);
}

/* The latest moment that has come. */
static unsigned now(void)
{
	unsigned m = load(&reached), after = 0;
	uint64_t passed;

	if (m < MOMENT_LAST_USED)
		return m;
	passed = cycles() - last_used;
	while (after < AFTERS && passed >= plan.step << after)
		after++;
	return MOMENT_LAST_USED + after;
}

/* Strikes for every moment that has come since the last call. */
static void catch_up(unsigned cpu)
{
	unsigned m = now();

	while (own[cpu].struck < m)
		strike(++own[cpu].struck, cpu);
}

void attack_reach(enum moment m)
{
	if (!active || m <= reached)
		return;
	if (m == MOMENT_LAST_USED)
		last_used = cycles();
	store(&reached, m);
	/* The others have the walk for themselves. */
	if (m == MOMENT_WALK)
		own[0].struck = m;
	catch_up(0);
}

void attack_poll(void)
{
	if (active)
		catch_up(0);
}

/* Takes, writes and frees the pages of the churn, again and again. */
static void churn(unsigned cpu)
{
	uint32_t count = plan.pairs ? pair_count / (cpus - 1) : share, pfn;
	const uint32_t *list = plan.pairs ? pairs + (cpu - 1) * count : pages_of(MOMENT_CHURN, cpu);
	struct page_damage damage;

	if (!plan.churn || !count || cycles() < own[cpu].next_turn)
		return;
	pfn = list[own[cpu].turn++ % count];
	/* A damaged page is not freed, so that the check after the migration finds it. */
	if (!page_take(pfn, MOMENT_CHURN) && pages[pfn].state == PAGE_USED && page_sound(pfn, &damage))
		page_give(pfn);
	__atomic_fetch_add(&attack_struck[MOMENT_CHURN], 1, __ATOMIC_RELAXED);
	own[cpu].next_turn = cycles() + plan.churn;
}

void attack_assist(unsigned cpu)
{
	for (;;) {
		while (load(&active)) {
			catch_up(cpu);
			churn(cpu);
			relax();
		}
		__atomic_fetch_add(&resting, 1, __ATOMIC_ACQ_REL);
		while (!load(&active))
			relax();
	}
}

void attack_end(void)
{
	if (!active)
		return;
	store(&active, 0);
	while (load(&resting) < cpus - 1)
		relax();
}
