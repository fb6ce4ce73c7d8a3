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
#include "page.h"

char LICENSE[] SEC("license") = "GPL";

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

struct facts {
	u32 class;
	u32 attributes;
};

struct loop {
	struct census *c;
	struct facts facts;
};

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

#define MAPPINGS(type, field)                  \
	(bpf_core_field_exists(type, field) && \
	 *(s32 *)(second + AT(type, field)) >= 0)

static __always_inline int is_mapped(const u8 *second)
{
	return MAPPINGS(struct folio, _large_mapcount) ||
	       MAPPINGS(struct folio, _entire_mapcount) ||
	       MAPPINGS(struct page___fields, compound_mapcount);
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

/* Remembers the compound page that begins at c->next. Says whether there is one. */
static __always_inline int meet(struct census *c, const u8 *head, struct facts *f)
{
	u8 second[PAGE_BYTES];
	u64 n = compound_pages(second, c->next);

	if (!n)
		return 0;
	classify_compound(head, second, f);
	c->compound_end = c->next + n;
	c->compound_class = f->class;
	c->compound_attributes = f->attributes;
	return 1;
}

static long count_page(u32 i, struct loop *l)
{
	struct census *c = l->c;
	struct facts *f = &l->facts;
	u8 p[PAGE_BYTES];
	u64 n;

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
		n = free_pages(p, c->next, c->end);
		add(c, n ? FREE : UNKNOWN, 0, n ? n : 1);
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
	if (!KNOWN_PAGES())
		return 1;
	bpf_loop(l.c->most, count_page, &l, 0);
	return 0;
}
