/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What programs that look at struct pages have in common: how each kernel marks a
 * page. The rules are those of the host (device/introspect/pages).
 */
#ifndef FBPP_PAGE_H
#define FBPP_PAGE_H

#include "kernel.h"

typedef __s32 s32;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The suffix after ___ is ours: CO-RE ignores it. */
struct page___fields {
	unsigned long flags;
	unsigned long compound_head;
	void *mapping;
	unsigned int page_type;
	unsigned long private;
	struct counter _refcount;
	unsigned char compound_dtor;	  /* up to Linux 6.5 */
	unsigned char compound_order;	  /* up to Linux 6.2 */
	struct counter compound_mapcount; /* up to Linux 6.1 */
};

/* Since Linux 6.18 the flags are a struct. */
struct page___flags {
	struct {
		unsigned long f;
	} flags;
};

/* Since Linux 7.1. */
struct page___info {
	unsigned long compound_info;
};

struct folio {
	unsigned char _folio_order; /* Linux 6.3 to 6.5 */
	unsigned long _flags_1;	    /* since Linux 6.6 */
	struct counter _entire_mapcount;
	struct counter _large_mapcount; /* since Linux 6.10 */
};

#pragma clang attribute pop

enum pagetype___page {
	PGTY_buddy___page = 1,
	PGTY_offline___page,
	PGTY_table___page,
	PGTY_guard___page,
	PGTY_hugetlb___page,
	PGTY_slab___page,
	PGTY_large_kmalloc___page,
	PGTY_unaccepted___page,
};

enum pageflags___page {
	PG_locked___page = 1,
	PG_referenced___page,
	PG_uptodate___page,
	PG_dirty___page,
	PG_lru___page,
	PG_slab___page,
	PG_reserved___page,
	PG_writeback___page,
	PG_head___page,
	PG_swapbacked___page,
	PG_swapcache___page,
	PG_active___page,
	PG_workingset___page,
	PG_unevictable___page,
	PG_hugetlb___page, /* Linux 6.6 to 6.8 */
};

enum compound_dtor_id___page { HUGETLB_PAGE_DTOR___page = 1 };

/* Values that do not change after boot. */
const volatile u64 vmemmap;	   /* first struct page */
const volatile u32 kernel_version; /* as LINUX_VERSION_CODE */

#define VERSION(a, b) ((a) << 16 | (b) << 8)

/* Whether this kernel's marks are known. Linux 6.9 to 6.11 have others. */
#define KNOWN_PAGES()                                     \
	(bpf_core_type_size(struct page) == PAGE_BYTES && \
	 (HAS_TYPE(buddy) || kernel_version < VERSION(6, 9)))

/* What is read of a struct page. All fields that matter lie within. */
#define PAGE_BYTES 64
#define MAX_ORDER 22   /* of a compound page */
#define SUBSECTION 512 /* struct pages that exist together, at least */

#define FLAG(name)                                                                     \
	(bpf_core_enum_value_exists(enum pageflags___page, PG_##name##___page) ?         \
		 1ULL << bpf_core_enum_value(enum pageflags___page, PG_##name##___page) : \
		 0)
#define HAS_TYPE(name) bpf_core_enum_value_exists(enum pagetype___page, PGTY_##name##___page)
#define IS_TYPE(word, name) \
	(HAS_TYPE(name) &&  \
	 (word) >> 24 == bpf_core_enum_value(enum pagetype___page, PGTY_##name##___page))

/* Before enum pagetype (v4.18 to v6.8): a bit that is 0 says which type it is. */
#define OLD_BASE 0xf0000000u
#define OLD_TYPE(word, bit) (((word) & (OLD_BASE | (bit))) == OLD_BASE)
#define OLD_BUDDY 0x80u
#define OLD_OFFLINE 0x100u
#define OLD_TABLE 0x200u
#define OLD_GUARD 0x400u

static __always_inline u64 flags_of(const u8 *p)
{
	if (bpf_core_field_exists(struct page___flags, flags))
		return *(u64 *)(p + bpf_core_field_offset(struct page___flags, flags));
	return *(u64 *)(p + bpf_core_field_offset(struct page___fields, flags));
}

static __always_inline u32 word_of(const u8 *p)
{
	return *(u32 *)(p + bpf_core_field_offset(struct page___fields, page_type));
}

static __always_inline u32 references(const u8 *p)
{
	return *(u32 *)(p + bpf_core_field_offset(struct page___fields, _refcount));
}

static __always_inline u64 mapping_of(const u8 *p)
{
	return *(u64 *)(p + bpf_core_field_offset(struct page___fields, mapping));
}

static __always_inline int is_tail(const u8 *p)
{
	if (bpf_core_field_exists(struct page___info, compound_info))
		return *(u64 *)(p + bpf_core_field_offset(struct page___info, compound_info)) & 1;
	return *(u64 *)(p + bpf_core_field_offset(struct page___fields, compound_head)) & 1;
}

static __always_inline int is_free(u32 word)
{
	return HAS_TYPE(buddy) ? IS_TYPE(word, buddy) : OLD_TYPE(word, OLD_BUDDY);
}

/* Whether the word is a type, and no number of mappings. */
static __always_inline int has_type(u32 word)
{
	if (HAS_TYPE(buddy))
		return word >= 0x80000000u && word < 0xff000000u;
	return word >= OLD_BASE && word < 0xffffff80u;
}

/* Where a field lies in its struct page, which is the second one for some. */
#define AT(type, field) (bpf_core_field_offset(type, field) % PAGE_BYTES)

/* The order of a compound page, by the struct page after its head. */
static __always_inline u32 order_of(const u8 *second)
{
	if (bpf_core_field_exists(struct page___fields, compound_order))
		return second[AT(struct page___fields, compound_order)];
	if (bpf_core_field_exists(struct folio, _folio_order))
		return second[AT(struct folio, _folio_order)];
	if (bpf_core_field_exists(struct folio, _flags_1))
		return second[AT(struct folio, _flags_1)];
	return 0;
}

static __always_inline int is_hugetlb(const u8 *second)
{
	if (bpf_core_field_exists(struct page___fields, compound_dtor))
		return second[AT(struct page___fields, compound_dtor)] ==
		       bpf_core_enum_value(enum compound_dtor_id___page,
					   HUGETLB_PAGE_DTOR___page);
	return (flags_of(second) & FLAG(hugetlb)) != 0;
}

static __always_inline u64 page_at(u64 pfn)
{
	return vmemmap + pfn * bpf_core_type_size(struct page);
}

/* How many pages the free block has that begins at pfn, or 0 if that makes no sense. */
static __always_inline u64 free_pages(const u8 *p, u64 pfn, u64 end)
{
	u64 order = *(u64 *)(p + bpf_core_field_offset(struct page___fields, private));
	u64 n = 1ULL << (order & 63);

	if (order >= bpf_core_field_size(struct zone, free_area) /
			     bpf_core_type_size(struct free_area) ||
	    pfn & (n - 1) || pfn + n > end)
		return 0;
	return n;
}

/*
 * Reads the second struct page of the compound page that begins at pfn, and returns how
 * many pages that has, or 0 if it is none.
 */
static __always_inline u64 compound_pages(u8 *second, u64 pfn)
{
	u32 order;

	if (bpf_probe_read_kernel(second, PAGE_BYTES, (void *)page_at(pfn + 1)) ||
	    !is_tail(second))
		return 0;
	order = order_of(second);
	if (order < 1 || order > MAX_ORDER || pfn & ((1ULL << (order & 31)) - 1))
		return 0;
	return 1ULL << (order & 31);
}

#endif
