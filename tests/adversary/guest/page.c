/* SPDX-License-Identifier: Apache-2.0 */
#include "page.h"
#include "fbpp.h"
#include "memory.h"

/* Where in a page its header is, in words. */
enum { WORD_PFN, WORD_GENERATION, WORD_MOMENT, WORD_CHECKSUM, WORD_BODY };

#define MULTIPLIER 6364136223846793005ull
#define INCREMENT  1442695040888963407ull

/* What an owner has in its page's order. A page that is lent has none. */
#define OWNERS_ORDER 1

struct page *pages;
uint32_t page_first, page_end;

static struct lock table_lock; /* guards all entries of pages */

static volatile uint64_t *words(uint32_t pfn)
{
	return (volatile uint64_t *)((uint64_t)pfn * PAGE_SIZE);
}

/* The first word of the body; each further one follows from the one before. */
static uint64_t body_start(uint32_t pfn, struct page p)
{
	return ((uint64_t)pfn << 32 | p.generation) * MULTIPLIER + p.moment;
}

static uint64_t body_next(uint64_t w)
{
	return w * MULTIPLIER + INCREMENT;
}

static void fill(uint32_t pfn, struct page p)
{
	volatile uint64_t *w = words(pfn);
	uint64_t v = body_start(pfn, p), sum = 0;

	w[WORD_PFN] = pfn;
	w[WORD_GENERATION] = p.generation;
	w[WORD_MOMENT] = p.moment;
	for (unsigned i = WORD_BODY; i < PAGE_WORDS; i++) {
		v = body_next(v);
		w[i] = v;
		sum += v;
	}
	w[WORD_CHECKSUM] = sum;
}

bool page_sound(uint32_t pfn, struct page_damage *damage)
{
	volatile uint64_t *w = words(pfn);
	struct page p = pages[pfn];
	uint64_t v = body_start(pfn, p), sum = 0;
	bool sound = w[WORD_PFN] == pfn && w[WORD_GENERATION] == p.generation &&
		     w[WORD_MOMENT] == p.moment;

	for (unsigned i = WORD_BODY; i < PAGE_WORDS; i++) {
		v = body_next(v);
		sound &= w[i] == v;
		sum += v;
	}
	if (sound && w[WORD_CHECKSUM] == sum)
		return true;
	*damage = (struct page_damage){ pfn, p, w[WORD_GENERATION] };
	return false;
}

void page_setup(uint64_t start, uint64_t ram_bytes)
{
	page_end = ram_bytes / PAGE_SIZE;
	pages = (struct page *)start;
	page_first = (start + page_end * sizeof(struct page) + PAGE_SIZE - 1) / PAGE_SIZE;
	for (uint32_t pfn = 0; pfn < page_end; pfn++)
		pages[pfn] = (struct page){ .state = pfn < page_first ? PAGE_USED : PAGE_FREE };
}

static void set_block(uint32_t pfn, unsigned order, enum page_state state)
{
	for (uint32_t i = 0; i < 1u << order; i++)
		store(&pages[pfn + i].state, state);
}

bool page_take(uint32_t pfn, uint8_t moment)
{
	struct page *p = &pages[pfn];
	bool free;

	lock(&table_lock);
	free = p->state == PAGE_FREE;
	if (free) {
		store(&p->state, PAGE_TAKEN);
		store(&p->order, OWNERS_ORDER);
		p->generation++;
		p->moment = moment;
	}
	unlock(&table_lock);
	if (free) {
		fill(pfn, *p);
		store(&p->state, PAGE_USED);
	}
	return free;
}

void page_rewrite(uint32_t pfn, uint8_t moment)
{
	pages[pfn].generation++;
	pages[pfn].moment = moment;
	fill(pfn, pages[pfn]);
}

void page_give(uint32_t pfn)
{
	lock(&table_lock);
	store(&pages[pfn].order, 0);
	store(&pages[pfn].state, PAGE_FREE);
	unlock(&table_lock);
}

uint32_t page_count(enum page_state state)
{
	uint32_t n = 0;

	for (uint32_t pfn = page_first; pfn < page_end; pfn++)
		n += pages[pfn].state == state;
	return n;
}

/* The order of the largest block at pfn that is aligned, and wholly free. */
static unsigned block_order(uint32_t pfn)
{
	unsigned order = 0;
	uint32_t free = 1; /* pages found free */

	while (order < MAX_ORDER && !(pfn & ((2u << order) - 1)) && pfn + (2u << order) <= page_end) {
		while (free < 2u << order)
			if (pages[pfn + free++].state != PAGE_FREE)
				return order;
		order++;
	}
	return order;
}

uint32_t page_walk(uint64_t *records, uint32_t room)
{
	uint32_t n = 0, pfn = page_first;

	while (pfn < page_end && n < room) {
		unsigned order = 0;

		/* One hold for one block: all of it was free at one instant. */
		lock(&table_lock);
		if (pages[pfn].state == PAGE_FREE) {
			order = block_order(pfn);
			records[n++] = fbpp_record(pfn, order);
		}
		unlock(&table_lock);
		pfn += 1u << order;
	}
	return n;
}

uint32_t page_lend(uint32_t from, unsigned order)
{
	uint32_t size = 1u << order, first = (page_first + size - 1) & -size, found = 0;
	uint32_t tries = (page_end - first) >> order, pfn = from & -size;

	for (; tries && !found; tries--, pfn += size) {
		if (pfn < first || pfn + size > page_end)
			pfn = first;
		lock(&table_lock);
		if (pages[pfn].state == PAGE_FREE && block_order(pfn) >= order) {
			set_block(pfn, order, PAGE_TAKEN);
			found = pfn;
		}
		unlock(&table_lock);
	}
	if (found) {
		zero((void *)((uint64_t)found * PAGE_SIZE), PAGE_SIZE << order);
		set_block(found, order, PAGE_LENT);
	}
	return found;
}

void page_return(uint32_t pfn, unsigned order)
{
	lock(&table_lock);
	set_block(pfn, order, PAGE_FREE);
	unlock(&table_lock);
}
