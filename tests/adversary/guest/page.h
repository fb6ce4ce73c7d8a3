/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocator, and what is written into its pages. Every page that is in use
 * has contents that follow from its number, its generation, which counts how
 * often it was written, and the moment at which that was; a checksum lets one
 * who has only the page check it.
 */
#ifndef PAGE_H
#define PAGE_H

#include "cpu.h"

#define PAGE_SIZE  4096
#define PAGE_WORDS (PAGE_SIZE / 8)
#define MAX_ORDER  10

/* The guest may be stopped, and compared, between any two instructions. */
enum page_state {
	PAGE_FREE,
	PAGE_TAKEN, /* allocated, and not all written yet */
	PAGE_USED,
	PAGE_LENT,  /* the device writes it: its contents follow from nothing */
};

/*
 * An entry of the table. The test on the host reads it, too: as what became of
 * memory, and, as a source that reads the guest's memory, like Linux's struct
 * page. So the entry of a free page has its block's order, which is 0 here. In
 * the entry of a page in use the owner may put any value there.
 */
struct page {
	uint32_t generation;
	uint8_t state;
	uint8_t moment; /* of the last write */
	uint16_t order;
};

/* Where a page is not what it should be. */
struct page_damage {
	uint32_t pfn;
	struct page want;
	uint64_t generation; /* what is found in the page */
};

/* Lays the table and work space for records over the RAM from start on, and
 * takes the rest. All of it is free then. */
void page_setup(uint64_t start, uint64_t ram_bytes);

extern struct page *pages; /* by page number */
extern uint32_t page_first, page_end;

/* Allocates that page, and writes it. False where it is in use. */
bool page_take(uint32_t pfn, uint8_t moment);

/* Clears and lends the first block of that order that is free from pfn on, or
 * before it where there is none. Returns its first page, or 0. */
uint32_t page_lend(uint32_t pfn, unsigned order);

/* Frees a block. */
void page_return(uint32_t pfn, unsigned order);

/* Writes a page that is in use anew. */
void page_rewrite(uint32_t pfn, uint8_t moment);

/* Frees a page. */
void page_give(uint32_t pfn);

/* Compares a page that is in use. */
bool page_sound(uint32_t pfn, struct page_damage *damage);

uint32_t page_count(enum page_state state);

/* Writes records of all free blocks, and returns their number. It lets go of
 * the lock often, so that others allocate meanwhile. room is in records. */
uint32_t page_walk(uint64_t *records, uint32_t room);

#endif
