// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A sample of the guest's working set: which pages has it used lately?
 *
 * The kernel's multi-generational LRU (mm/vmscan.c) knows. User space has it age the
 * lists, waits, and has it age them again. What was used in between is then in one of
 * the two newest generations, or it was marked PG_referenced meanwhile: since Linux
 * 6.14 a page is only marked the first time that it is found to be used, and cache that
 * is read is marked by each kernel. So there are two looks, one after each aging. The
 * program only reads. It runs as the census does, over and over, without a lock, and
 * what it finds is a hint. Memory of the kernel itself counts as used. What is free is
 * noted by itself: if it is not free any more later, somebody uses it.
 */
#include "page.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct page___memcg {
	unsigned long memcg_data;
};

/* What these structs are called differs from kernel to kernel. The members do not. */
struct generations {
	unsigned long max_seq;
};

struct lruvec {
	struct generations lrugen;
};

struct mem_cgroup_per_node {
	struct lruvec lruvec;
	struct obj_cgroup *orig_objcg; /* since Linux 7.1 */
};

struct mem_cgroup {
	struct mem_cgroup_per_node *nodeinfo[1];
};

struct obj_cgroup {
	struct mem_cgroup *memcg;
};

struct pglist_data___lru {
	struct lruvec __lruvec;
};

#pragma clang attribute pop

char LICENSE[] SEC("license") = "GPL";

/* Values that do not change after boot. */
const volatile u64 node_data;	     /* struct pglist_data *[], 0 without NUMA */
const volatile u64 contig_page_data; /* struct pglist_data, without NUMA */
const volatile u32 node_shift;	     /* where the node is in a page's flags; 64: nowhere */
const volatile u32 generation_shift; /* where its generation is */
const volatile u32 generations;	     /* how many there are; 0: this kernel has none */

#define WINDOW 4096 /* pages, of which something is noted in each run */
#define FIRST 1	    /* look */

/* Shared with workingset/sampler.go, which explains the fields. */
struct sample {
	u64 next;
	u64 end;
	u64 most;
	u64 look;
	u64 wrong; /* pages on a list whose generation does not exist */
	u64 right; /* and those whose does */
	u64 compound_end;
	u64 compound_set;
	u64 group; /* the list of the last page: of this memory control group */
	u32 node;  /* and node */
	u32 young; /* which of its generations are young; 0: not known yet */
	u64 before[WINDOW / 64]; /* at the second look: noted at the first */
	u64 noted[WINDOW / 64];
	u64 unused[WINDOW / 64]; /* at the second look: free */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct sample);
} sample SEC(".maps");

static __always_inline u64 read_word(u64 at)
{
	u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)at);
	return word;
}

/* Returns where the list of a group and node is, or 0. */
static __always_inline u64 list_of(u64 group, u32 node)
{
	u64 at;

	if (!group) {
		at = node_data ? read_word(node_data + node * sizeof(u64)) : contig_page_data;
		return at ? at + bpf_core_field_offset(struct pglist_data___lru, __lruvec) : 0;
	}
	if (bpf_core_field_exists(struct mem_cgroup_per_node, orig_objcg))
		group = read_word(group + bpf_core_field_offset(struct obj_cgroup, memcg));
	if (!group)
		return 0;
	at = read_word(group + bpf_core_field_offset(struct mem_cgroup, nodeinfo) +
		       node * sizeof(u64));
	return at ? at + bpf_core_field_offset(struct mem_cgroup_per_node, lruvec) : 0;
}

/*
 * Returns which generations of a list are young, the two newest, as bits by their number
 * in the flags of a page. That is one more than the generation's own.
 */
static __always_inline u32 young_of(u64 group, u32 node)
{
	u64 list = list_of(group, node), newest;

	if (!list)
		return 0;
	newest = read_word(list + bpf_core_field_offset(struct lruvec, lrugen.max_seq));
	return 1u << ((newest % generations + 1) & 31) |
	       1u << (((newest + generations - 1) % generations + 1) & 31);
}

static __always_inline u64 group_of(const u8 *p)
{
	if (!bpf_core_field_exists(struct page___memcg, memcg_data))
		return 0;
	return *(u64 *)(p + bpf_core_field_offset(struct page___memcg, memcg_data)) & ~7ULL;
}

/*
 * Whether a page that is on a list of the LRU, or on its way to one, was used lately.
 * marked says whether it was marked at the first look. Of a page that cannot be
 * reclaimed, as locked ones, the kernel does not know: it counts as used.
 */
static __always_inline u64 was_used(struct sample *s, const u8 *p, u64 marked)
{
	u64 flags = flags_of(p), group = group_of(p);
	u32 node = node_shift < 64 ? flags >> (node_shift & 63) : 0;
	u32 generation = flags >> (generation_shift & 63) & 7;

	if (flags & FLAG(unevictable))
		return 1;
	if (flags & FLAG(lru) && (!generation || generation > generations))
		s->wrong++;
	else if (flags & FLAG(lru))
		s->right++;
	if (s->look == FIRST)
		return (flags & FLAG(referenced)) != 0;
	if (!marked && flags & FLAG(referenced))
		return 1;
	if (!generation)
		return (flags & FLAG(active)) != 0; /* it is new, on no list yet */
	if (!s->young || group != s->group || node != s->node) {
		s->group = group;
		s->node = node;
		s->young = young_of(group, node);
	}
	return s->young >> generation & 1;
}

/* Whether it is not known of a page with a type that it is used. */
static __always_inline int is_nobodys(u32 word)
{
	if (!HAS_TYPE(buddy))
		return OLD_TYPE(word, OLD_OFFLINE);
	return IS_TYPE(word, offline) || IS_TYPE(word, hugetlb) || IS_TYPE(word, unaccepted);
}

/*
 * Whether a page is free, as it seems, and in a processor's own cache of such pages. So
 * looks what is behind the first page of a large piece of memory that the kernel has made
 * no compound page of. That is hot then, and is not elsewhere.
 */
static __always_inline int is_cached(const u8 *p)
{
	return !references(p) && !mapping_of(p) && !has_type(word_of(p)) &&
	       !(flags_of(p) & (FLAG(reserved) | FLAG(slab) | FLAG(lru)));
}

/*
 * What is to be noted of a page, or of the compound page of which it is the head: at the
 * first look, whether it is marked, and at the second, whether it is hot.
 */
static __always_inline u64 judge(struct sample *s, const u8 *p, u64 marked)
{
	u64 flags = flags_of(p), mapping = mapping_of(p);
	u64 kernels = s->look != FIRST; /* of its own pages the kernel uses all */
	u32 word = word_of(p);

	if (flags & FLAG(reserved))
		return kernels;
	if (has_type(word))
		return kernels && !is_nobodys(word);
	if (flags & FLAG(slab))
		return kernels;
	if (!mapping && !(flags & FLAG(swapbacked) && flags & FLAG(swapcache)))
		return kernels && references(p);
	if ((mapping & 3) == 2)
		return kernels;
	return was_used(s, p, marked);
}

/* Whether the page at s->next was noted at the first look. */
static __always_inline u64 was_noted(struct sample *s)
{
	u64 at = s->next & (WINDOW - 1);

	return s->before[at / 64] >> (at & 63) & 1;
}

/* Notes something of the page at s->next, and goes on. */
static __always_inline void note(struct sample *s, u64 set)
{
	u64 at = s->next & (WINDOW - 1);

	if (set)
		s->noted[at / 64] |= 1ULL << (at & 63);
	s->next++;
}

/*
 * Notes the block of n free pages that begins at s->next, and goes on. It is aligned to its
 * size, and lies in the window.
 */
static __always_inline void note_free(struct sample *s, u64 n)
{
	u64 at = s->next & (WINDOW - 1);
	u64 word = n < 64 ? ((1ULL << (n & 63)) - 1) << (at & 63) : ~0ULL;

	if (s->look != FIRST)
		for (u32 i = 0; i < WINDOW / 64 && i * 64 < n; i++)
			s->unused[(at / 64 + i) & (WINDOW / 64 - 1)] |= word;
	s->next += n;
}

/* Remembers the compound page that begins at s->next. */
static __always_inline void meet(struct sample *s, const u8 *head)
{
	u8 second[PAGE_BYTES];
	u64 n = compound_pages(second, s->next);

	s->compound_end = s->next + n;
	s->compound_set = n && !is_hugetlb(second) && judge(s, head, was_noted(s));
}

static long look_at_page(u32 i, struct sample **at)
{
	struct sample *s = *at;
	u8 p[PAGE_BYTES];

	if (s->next >= s->end)
		return 1;
	if (bpf_probe_read_kernel(p, sizeof(p), (void *)page_at(s->next))) {
		s->next = (s->next | (SUBSECTION - 1)) + 1; /* no memory there */
		return 0;
	}
	if (is_tail(p)) { /* of the page that was met last, or of one that has changed since */
		note(s, s->next < s->compound_end && s->compound_set);
	} else if (is_free(word_of(p))) {
		u64 n = free_pages(p, s->next, s->end);
		if (n)
			note_free(s, n);
		else
			s->next++;
	} else if (flags_of(p) & FLAG(head)) {
		meet(s, p);
		note(s, s->compound_set);
	} else {
		if (is_cached(p))
			note_free(s, 1);
		else
			note(s, judge(s, p, was_noted(s)));
	}
	return 0;
}

/*
 * Looks at up to s->most pages from s->next on, all of them in one window. It returns 1
 * where it does not know the kernel.
 */
SEC("syscall")
int sample_pages(void *ctx)
{
	struct sample *s;
	u32 zero = 0;

	s = bpf_map_lookup_elem(&sample, &zero);
	if (!s)
		return 0;
	if (!KNOWN_PAGES() || !generations)
		return 1;
	s->young = 0; /* the kernel may have aged the list since the last run */
	bpf_loop(s->most, look_at_page, &s, 0);
	return 0;
}
