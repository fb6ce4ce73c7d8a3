// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A census of the guest's pages: what does the kernel use them for?
 *
 * User space runs count_pages over and over. Each run looks at a few thousand
 * struct pages and goes on where the one before has stopped, so no run is long.
 * No lock is held. A kernel with full preemption can interrupt a run, others wait
 * for its end. Pages change meanwhile: the counts are approximate, as those of any
 * such census are. A struct page that makes no sense counts as unknown. The classes
 * and their rules are those of the host's census (device/introspect/pages).
 */
#include "kernel.h"

typedef __s32 s32;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The suffix after ___ is ours: CO-RE ignores it. */
struct page___census {
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

enum pagetype___census {
	PGTY_buddy___census = 1,
	PGTY_offline___census,
	PGTY_table___census,
	PGTY_guard___census,
	PGTY_hugetlb___census,
	PGTY_slab___census,
	PGTY_large_kmalloc___census,
};

enum pageflags___census {
	PG_locked___census = 1,
	PG_uptodate___census,
	PG_dirty___census,
	PG_lru___census,
	PG_slab___census,
	PG_reserved___census,
	PG_writeback___census,
	PG_head___census,
	PG_swapbacked___census,
	PG_swapcache___census,
	PG_active___census,
	PG_workingset___census,
	PG_hugetlb___census, /* Linux 6.6 to 6.8 */
};

enum compound_dtor_id___census { HUGETLB_PAGE_DTOR___census = 1 };

char LICENSE[] SEC("license") = "GPL";

/* Values that do not change after boot. */
const volatile u64 vmemmap;	   /* first struct page */
const volatile u32 kernel_version; /* as LINUX_VERSION_CODE */

#define VERSION(a, b) ((a) << 16 | (b) << 8)

/* The order of spec.md, section 9.5. */
enum class {
	UNKNOWN,
	FREE,
	RESERVED,
	KERNEL,
	SLAB,
	PAGE_TABLE,
	OFFLINE,
	ANONYMOUS,
	KSM,
	FILE_CACHE,
	SHMEM,
	HUGETLB,
	CLASSES,
};

enum attribute {
	PAGES,
	MAPPED,
	DIRTY,
	WRITEBACK,
	SWAP_CACHE,
	CLEAN,
	ACTIVE,
	COLD,
	COUNTS,
};

#define BIT(attribute) (1u << (attribute))

/* Shared with pagecensus/counter.go, which explains the fields. */
struct census {
	u64 next;
	u64 end;
	u64 most;
	u64 compound_end;
	u32 compound_class;
	u32 compound_attributes;
	u64 counts[CLASSES][COUNTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct census);
} census SEC(".maps");

/* What is read of a struct page. All fields that matter lie within. */
#define PAGE_BYTES 64
#define MAX_ORDER 22   /* of a compound page */
#define SUBSECTION 512 /* struct pages that exist together, at least */

struct facts {
	u32 class;
	u32 attributes;
};

struct loop {
	struct census *c;
	struct facts facts;
};

#define FLAG(name)                                                                     \
	(bpf_core_enum_value_exists(enum pageflags___census, PG_##name##___census) ?        \
		 1ULL << bpf_core_enum_value(enum pageflags___census, PG_##name##___census) : \
		 0)
#define HAS_TYPE(name) bpf_core_enum_value_exists(enum pagetype___census, PGTY_##name##___census)
#define IS_TYPE(word, name) \
	(HAS_TYPE(name) &&  \
	 (word) >> 24 == bpf_core_enum_value(enum pagetype___census, PGTY_##name##___census))

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
	return *(u64 *)(p + bpf_core_field_offset(struct page___census, flags));
}

static __always_inline u32 word_of(const u8 *p)
{
	return *(u32 *)(p + bpf_core_field_offset(struct page___census, page_type));
}

static __always_inline u32 references(const u8 *p)
{
	return *(u32 *)(p + bpf_core_field_offset(struct page___census, _refcount));
}

static __always_inline u64 mapping_of(const u8 *p)
{
	return *(u64 *)(p + bpf_core_field_offset(struct page___census, mapping));
}

static __always_inline int is_tail(const u8 *p)
{
	if (bpf_core_field_exists(struct page___info, compound_info))
		return *(u64 *)(p + bpf_core_field_offset(struct page___info, compound_info)) & 1;
	return *(u64 *)(p + bpf_core_field_offset(struct page___census, compound_head)) & 1;
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

static __always_inline u32 class_of_type(u32 word)
{
	if (!HAS_TYPE(buddy)) {
		if (OLD_TYPE(word, OLD_TABLE))
			return PAGE_TABLE;
		if (OLD_TYPE(word, OLD_OFFLINE))
			return OFFLINE;
		return OLD_TYPE(word, OLD_GUARD) ? KERNEL : UNKNOWN;
	}
	if (IS_TYPE(word, table))
		return PAGE_TABLE;
	if (IS_TYPE(word, slab))
		return SLAB;
	if (IS_TYPE(word, hugetlb))
		return HUGETLB;
	if (IS_TYPE(word, offline))
		return OFFLINE;
	return IS_TYPE(word, large_kmalloc) || IS_TYPE(word, guard) ? KERNEL : UNKNOWN;
}

/* Classifies a page without a type by its mapping. */
static __always_inline void classify_owned(const u8 *p, struct facts *f)
{
	u64 flags = flags_of(p), mapping = mapping_of(p);
	u32 swap_cache = flags & FLAG(swapbacked) && flags & FLAG(swapcache);

	if ((mapping & 3) == 1 || (!mapping && swap_cache)) {
		f->class = ANONYMOUS;
	} else if ((mapping & 3) == 3) {
		f->class = KSM;
	} else if (!mapping && !references(p)) {
		f->class = UNKNOWN;
		return;
	} else if (!mapping || mapping & 3) {
		f->class = KERNEL;
		return;
	} else if (!(flags & FLAG(lru))) {
		f->class = UNKNOWN;
		return;
	} else {
		f->class = flags & FLAG(swapbacked) ? SHMEM : FILE_CACHE;
	}
	if ((s32)word_of(p) >= 0)
		f->attributes |= BIT(MAPPED);
	if (flags & FLAG(dirty))
		f->attributes |= BIT(DIRTY);
	if (flags & FLAG(writeback))
		f->attributes |= BIT(WRITEBACK);
	if (swap_cache)
		f->attributes |= BIT(SWAP_CACHE);
	if (f->class == FILE_CACHE && !f->attributes &&
	    (flags & (FLAG(uptodate) | FLAG(locked))) == FLAG(uptodate))
		f->attributes = BIT(CLEAN);
	if (flags & (FLAG(active) | FLAG(workingset)))
		f->attributes |= BIT(ACTIVE);
}

static __always_inline void classify(const u8 *p, struct facts *f)
{
	u64 flags = flags_of(p);
	u32 word = word_of(p);

	f->attributes = 0;
	if (flags & FLAG(reserved))
		f->class = RESERVED;
	else if (has_type(word))
		f->class = class_of_type(word);
	else if (flags & FLAG(slab))
		f->class = SLAB;
	else
		classify_owned(p, f);
}

/* Where a field lies in its struct page, which is the second one for some. */
#define AT(type, field) (bpf_core_field_offset(type, field) % PAGE_BYTES)

/* The order of a compound page, by the struct page after its head. */
static __always_inline u32 order_of(const u8 *second)
{
	if (bpf_core_field_exists(struct page___census, compound_order))
		return second[AT(struct page___census, compound_order)];
	if (bpf_core_field_exists(struct folio, _folio_order))
		return second[AT(struct folio, _folio_order)];
	if (bpf_core_field_exists(struct folio, _flags_1))
		return second[AT(struct folio, _flags_1)];
	return 0;
}

static __always_inline int is_hugetlb(const u8 *second)
{
	if (bpf_core_field_exists(struct page___census, compound_dtor))
		return second[AT(struct page___census, compound_dtor)] ==
		       bpf_core_enum_value(enum compound_dtor_id___census,
					   HUGETLB_PAGE_DTOR___census);
	return (flags_of(second) & FLAG(hugetlb)) != 0;
}

#define MAPPINGS(type, field)                  \
	(bpf_core_field_exists(type, field) && \
	 *(s32 *)(second + AT(type, field)) >= 0)

static __always_inline int is_mapped(const u8 *second)
{
	return MAPPINGS(struct folio, _large_mapcount) ||
	       MAPPINGS(struct folio, _entire_mapcount) ||
	       MAPPINGS(struct page___census, compound_mapcount);
}

static __always_inline void classify_compound(const u8 *head, const u8 *second, struct facts *f)
{
	u32 mapped = is_mapped(second) ? BIT(MAPPED) : 0;

	classify(head, f);
	if (f->class == HUGETLB || is_hugetlb(second)) {
		f->class = HUGETLB;
		f->attributes = mapped;
		return;
	}
	if (f->class != ANONYMOUS && f->class != FILE_CACHE && f->class != SHMEM &&
	    f->class != KSM)
		return;
	f->attributes = (f->attributes & ~BIT(MAPPED)) | mapped;
	if (mapped)
		f->attributes &= ~BIT(CLEAN);
}

/*
 * Before Linux 6.10 each page of a compound page counts how often it is mapped by
 * itself.
 */
static __always_inline u32 with_own_mapping(const u8 *p, u32 class, u32 attributes)
{
	if (bpf_core_field_exists(struct folio, _large_mapcount) || class == HUGETLB ||
	    (s32)word_of(p) < 0)
		return attributes;
	return (attributes & ~BIT(CLEAN)) | BIT(MAPPED);
}

/* Counts n pages from c->next on, and goes on after them. */
static __always_inline void add(struct census *c, u32 class, u32 attributes, u64 n)
{
	u64 *row;

	c->next += n;
	if (class >= CLASSES)
		return;
	row = c->counts[class];
	row[PAGES] += n;
	if (attributes & BIT(MAPPED))
		row[MAPPED] += n;
	if (attributes & BIT(DIRTY))
		row[DIRTY] += n;
	if (attributes & BIT(WRITEBACK))
		row[WRITEBACK] += n;
	if (attributes & BIT(SWAP_CACHE))
		row[SWAP_CACHE] += n;
	if (attributes & BIT(CLEAN))
		row[CLEAN] += n;
	if (attributes & BIT(ACTIVE))
		row[ACTIVE] += n;
	if ((attributes & (BIT(CLEAN) | BIT(ACTIVE))) == BIT(CLEAN))
		row[COLD] += n;
}

static __always_inline u64 page_at(u64 pfn)
{
	return vmemmap + pfn * bpf_core_type_size(struct page);
}

static __always_inline void count_free(struct census *c, const u8 *p)
{
	u64 order = *(u64 *)(p + bpf_core_field_offset(struct page___census, private));
	u64 n = 1ULL << (order & 63);

	if (order >= bpf_core_field_size(struct zone, free_area) /
			     bpf_core_type_size(struct free_area) ||
	    c->next & (n - 1) || c->next + n > c->end)
		add(c, UNKNOWN, 0, 1);
	else
		add(c, FREE, 0, n);
}

/* Remembers the compound page that begins at c->next. Says whether there is one. */
static __always_inline int meet(struct census *c, const u8 *head, struct facts *f)
{
	u8 second[PAGE_BYTES];
	u32 order;

	if (bpf_probe_read_kernel(second, sizeof(second), (void *)page_at(c->next + 1)) ||
	    !is_tail(second))
		return 0;
	order = order_of(second);
	if (order < 1 || order > MAX_ORDER || c->next & ((1ULL << (order & 31)) - 1))
		return 0;
	classify_compound(head, second, f);
	c->compound_end = c->next + (1ULL << (order & 31));
	c->compound_class = f->class;
	c->compound_attributes = f->attributes;
	return 1;
}

static long count_page(u32 i, struct loop *l)
{
	struct census *c = l->c;
	struct facts *f = &l->facts;
	u8 p[PAGE_BYTES];

	if (c->next >= c->end)
		return 1;
	if (bpf_probe_read_kernel(p, sizeof(p), (void *)page_at(c->next))) {
		c->next = (c->next | (SUBSECTION - 1)) + 1; /* no memory there */
		return 0;
	}
	if (c->next < c->compound_end && !is_tail(p))
		c->compound_end = 0; /* it has changed, or its order was read while it did */
	if (c->next < c->compound_end) {
		add(c, c->compound_class,
		    with_own_mapping(p, c->compound_class, c->compound_attributes), 1);
	} else if (is_free(word_of(p))) {
		count_free(c, p);
	} else if (is_tail(p)) { /* of a page that has changed since its head was read */
		add(c, UNKNOWN, 0, 1);
	} else if (flags_of(p) & FLAG(head)) {
		if (!meet(c, p, f))
			f->class = UNKNOWN, f->attributes = 0;
		add(c, f->class, with_own_mapping(p, f->class, f->attributes), 1);
	} else {
		classify(p, f);
		add(c, f->class, f->attributes, 1);
	}
	return 0;
}

/* Counts up to c->most pages from c->next on. It returns 1 where it does not know the kernel. */
SEC("syscall")
int count_pages(void *ctx)
{
	struct loop l = {};
	u32 zero = 0;

	l.c = bpf_map_lookup_elem(&census, &zero);
	if (!l.c)
		return 0;
	if (bpf_core_type_size(struct page) != PAGE_BYTES ||
	    (!HAS_TYPE(buddy) && kernel_version >= VERSION(6, 9)))
		return 1;
	bpf_loop(l.c->most, count_page, &l, 0);
	return 0;
}
