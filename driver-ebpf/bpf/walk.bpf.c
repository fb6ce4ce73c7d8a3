// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The snapshot of the buddy allocator's free lists.
 *
 * A read of /proc/buddyinfo makes frag_show() print every populated zone, and a
 * read of /proc/zoneinfo makes zoneinfo_show() print every zone. Each print is
 * the function that walk_zones_in_node() calls (mm/vmstat.c): with zone->lock
 * held and interrupts off, if the caller does not ask for a print without lock.
 * walk_zone runs right before the first seq_printf() for a zone. Under the lock
 * the free lists do not change while it runs. So it must not allocate memory or
 * wake a task, and it must stop at the budget. A walk that stops there is
 * resumed when the zone is printed again.
 *
 * Since Linux 7.3 buddyinfo is printed without the lock. There nothing is
 * walked: lists that change could lead to pages that are in use.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

#define MAX_NODES 64
#define MAX_ZONES 8	 /* per node: the kernel has at most 6 kinds */
#define MAX_ORDERS 16	 /* the kernel has 11 on x86-64, and 14 at most */
#define CLOCK_INTERVAL 16 /* blocks between two looks at the clock */

/* Addresses of kernel variables, and values that do not change after boot. */
const volatile u64 vmemmap;	     /* first struct page */
const volatile u64 node_data;	     /* struct pglist_data *[], 0 without NUMA */
const volatile u64 contig_page_data; /* struct pglist_data, without NUMA */
const volatile u64 per_cpu_offset;   /* unsigned long [], 0: no per-CPU lists */
/* page_type of a free page before it had an enum: type & mask == value */
const volatile u32 buddy_mask;
const volatile u32 buddy_value;

/* Shared with freepages/control.go, which explains the fields of both. */
struct control {
	u64 task;
	u64 request;
	u64 budget_ns;
	u32 budget_entries;
	u32 armed;

	u32 count;
	u32 zones;
	u32 unfinished;
	u32 broken;
	u32 holds;
	u32 restarts;
	u64 walk_ns;
	u64 hold_max_ns;
	u32 unlocked;
	u32 cpu;
	u32 held;
	u32 unsettled;
	u32 locked;
	u32 finished;
};

struct counts {
	u64 free[MAX_ORDERS];
};

/* The state of the walk of one zone between two reads. */
struct progress {
	u64 request; /* that the rest belongs to */
	u64 last;    /* last struct page visited of the current list, 0: none */
	u32 slot;    /* current list: counts from the highest order downwards */
	u32 done;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_NODES *MAX_ZONES);
	__type(key, u32);
	__type(value, struct progress);
} progress SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_NODES *MAX_ZONES);
	__type(key, u32);
	__type(value, struct counts);
} counts SEC(".maps");

/* Records in wire format: pfn << 8 | order. User space sets max_entries. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} records SEC(".maps");

enum stop {
	GO_ON,
	STOP_BUDGET,
	STOP_FULL,
	STOP_BROKEN,
};

struct walk {
	u64 zone;
	u64 zone_end;
	u64 deadline;
	u64 pos;  /* the list_head to look at next */
	u64 last; /* the struct page visited last in this list */
	u32 slot;
	u32 order;
	u32 left; /* blocks left in the budget */
	u32 count;
	u32 restarts;
	u32 ended; /* the list's end was reached */
	enum stop stop;
};

/* One read of a struct page contains at least lru, page_type and private. */
#define PAGE_BYTES 64

static __always_inline int is_buddy(u32 page_type)
{
	if (bpf_core_enum_value_exists(enum pagetype___fbpp, PGTY_buddy___fbpp))
		return page_type >> 24 ==
		       bpf_core_enum_value(enum pagetype___fbpp, PGTY_buddy___fbpp);
	return (page_type & buddy_mask) == buddy_value;
}

/*
 * Reads the struct page and says whether it heads a free block of that order.
 * next receives what follows in its list.
 */
static __always_inline int read_buddy(u64 page, u32 order, u64 *next)
{
	u8 bytes[PAGE_BYTES];

	if (bpf_probe_read_kernel(bytes, sizeof(bytes), (void *)page))
		return 0;
	if (!is_buddy(*(u32 *)(bytes + bpf_core_field_offset(struct page, page_type))))
		return 0;
	if (*(u64 *)(bytes + bpf_core_field_offset(struct page, private)) != order)
		return 0;
	*next = *(u64 *)(bytes + bpf_core_field_offset(struct page, lru));
	return 1;
}

#define NOT_A_BLOCK (~0ULL)

/* Returns the page's number, or NOT_A_BLOCK if no block of that order can begin there. */
static __always_inline u64 block_pfn(u64 page, u32 order)
{
	u64 index = page - vmemmap, pfn = index / bpf_core_type_size(struct page);

	if (page < vmemmap || pfn * bpf_core_type_size(struct page) != index ||
	    pfn & ((1ULL << (order & 63)) - 1))
		return NOT_A_BLOCK;
	return pfn;
}

static long visit(u32 i, struct walk *w)
{
	u64 page, pfn, next, *record;

	/* List heads lie inside their struct zone, and struct pages do not. */
	if (w->pos >= w->zone && w->pos < w->zone_end) {
		w->ended = 1;
		return 1;
	}

	page = w->pos - bpf_core_field_offset(struct page, lru);
	pfn = block_pfn(page, w->order);
	if (pfn == NOT_A_BLOCK || !read_buddy(page, w->order, &next)) {
		w->stop = STOP_BROKEN;
		return 1;
	}

	record = bpf_map_lookup_elem(&records, &w->count);
	if (!record) {
		w->stop = STOP_FULL;
		return 1;
	}
	*record = pfn << 8 | w->order;
	w->count++;
	w->left--;
	w->last = page;
	w->pos = next;

	/*
	 * This comes after the block: each hold visits one at least. The value
	 * of left is unknown to the verifier. With a counter that starts at 0,
	 * the verifier of Linux 6.1 was seen to remove the check of the clock.
	 */
	if (!w->left || (w->left % CLOCK_INTERVAL == 0 && bpf_ktime_get_ns() > w->deadline)) {
		w->stop = STOP_BUDGET;
		return 1;
	}
	return 0;
}

static __always_inline u32 list_types(void)
{
	return bpf_core_field_size(struct free_area, free_list) /
	       bpf_core_type_size(struct list_head);
}

static __always_inline u32 orders(void)
{
	return bpf_core_field_size(struct zone, free_area) /
	       bpf_core_type_size(struct free_area);
}

static long walk_list(u32 i, struct walk *w)
{
	u32 types = list_types();
	u32 type = w->slot % types;
	u64 head, ignored;

	w->order = orders() - 1 - w->slot / types;
	if (bpf_core_enum_value_exists(enum migratetype___fbpp, MIGRATE_ISOLATE___fbpp) &&
	    type == bpf_core_enum_value(enum migratetype___fbpp, MIGRATE_ISOLATE___fbpp))
		goto next_list;

	head = w->zone + bpf_core_field_offset(struct zone, free_area) +
	       w->order * bpf_core_type_size(struct free_area) +
	       bpf_core_field_offset(struct free_area, free_list) +
	       type * bpf_core_type_size(struct list_head);

	/*
	 * Between two holds the last block may have been allocated, merged, or
	 * moved to the list of another type. If it was moved, the walk goes on
	 * in that list: its blocks are free as well.
	 */
	if (w->last && !read_buddy(w->last, w->order, &ignored)) {
		w->last = 0;
		w->restarts++;
	}
	if (w->last)
		head = w->last + bpf_core_field_offset(struct page, lru);
	if (bpf_probe_read_kernel(&w->pos, sizeof(w->pos), (void *)head)) {
		w->stop = STOP_BROKEN;
		return 1;
	}
	w->ended = 0;
	bpf_loop(w->left + 1, visit, w, 0);
	if (!w->stop && !w->ended)
		w->stop = STOP_BUDGET;
	if (w->stop)
		return 1;
next_list:
	w->slot++;
	w->last = 0;
	return 0;
}

struct tally {
	u64 zone;
	struct counts *counts;
};

/* Reads how many free blocks of an order the allocator itself counts. */
static long count_order(u32 order, struct tally *t)
{
	u64 area = t->zone + bpf_core_field_offset(struct zone, free_area) +
		   order * bpf_core_type_size(struct free_area);

	if (order >= MAX_ORDERS)
		return 1;
	return bpf_probe_read_kernel(
		       &t->counts->free[order], sizeof(t->counts->free[order]),
		       (void *)(area + bpf_core_field_offset(struct free_area, nr_free))) != 0;
}

/*
 * Whether the zone has memory. Only then its free lists are certain to have been
 * initialized. /proc/zoneinfo prints the other zones, too.
 */
static __always_inline int is_populated(u64 zone)
{
	u64 present;

	return !bpf_probe_read_kernel(&present, sizeof(present),
				      (void *)(zone + bpf_core_field_offset(struct zone,
									    present_pages))) &&
	       present;
}

/*
 * The free pages that a CPU holds for its next allocations, struct per_cpu_pages.
 *
 * With zone->lock held and interrupts off, this CPU's lists of the zone do not
 * change. Only this CPU adds to them, in code that cannot be preempted, and it
 * is here now. Another CPU may drain them, but free_pcppages_bulk() takes pages
 * off only under zone->lock. What is left is an NMI that allocates. So the lists
 * count only if they hold as many pages as the kernel says, before and after.
 * That also shows that each list has the order that is assumed here.
 */
struct held_walk {
	u64 pcp;
	u64 head;
	u64 pos;
	u64 deadline;
	u64 pages;
	u32 order;
	u32 left;
	u32 count;
	u32 ended;
	u32 stop;
};

#define COSTLY_ORDER 3 /* the lists of orders up to this one come first */
#define HUGE_ORDER 9   /* of the lists after them */

/* Says whether nobody uses the page. next receives what follows in its list. */
static __always_inline int read_held(u64 page, u64 *next)
{
	u8 bytes[PAGE_BYTES];

	if (bpf_probe_read_kernel(bytes, sizeof(bytes), (void *)page))
		return 0;
	*next = *(u64 *)(bytes + bpf_core_field_offset(struct page, lru));
	return *(u32 *)(bytes + bpf_core_field_offset(struct page, _refcount)) == 0;
}

static long visit_held(u32 i, struct held_walk *w)
{
	u64 page, pfn, next, *record;

	if (w->pos == w->head) {
		w->ended = 1;
		return 1;
	}
	page = w->pos - bpf_core_field_offset(struct page, lru);
	pfn = block_pfn(page, w->order);
	if (pfn == NOT_A_BLOCK || !read_held(page, &next))
		return 1;
	record = bpf_map_lookup_elem(&records, &w->count);
	if (!record)
		return 1;
	*record = pfn << 8 | w->order;
	w->count++;
	w->left--;
	w->pages += 1ULL << (w->order & 63);
	w->pos = next;
	return !w->left || (w->left % CLOCK_INTERVAL == 0 && bpf_ktime_get_ns() > w->deadline);
}

static long walk_held(u32 i, struct held_walk *w)
{
	u32 types = bpf_core_enum_value(enum migratetype___fbpp, MIGRATE_PCPTYPES___fbpp);

	w->order = i / types;
	if (w->order > COSTLY_ORDER)
		w->order = HUGE_ORDER;
	w->head = w->pcp + bpf_core_field_offset(struct per_cpu_pages, lists) +
		  i * bpf_core_type_size(struct list_head);
	w->ended = 0;
	if (!bpf_probe_read_kernel(&w->pos, sizeof(w->pos), (void *)w->head))
		bpf_loop(w->left + 1, visit_held, w, 0);
	w->stop = !w->ended;
	return w->stop;
}

static __always_inline int read_held_count(u64 pcp, u32 *count)
{
	return bpf_probe_read_kernel(count, sizeof(*count),
				     (void *)(pcp + bpf_core_field_offset(struct per_cpu_pages,
									  count)));
}

/* Appends the records of this CPU's lists, all or none. */
static __always_inline void walk_cpu(u64 zone, struct control *c, u64 deadline)
{
	u32 cpu = bpf_get_smp_processor_id(), before, after;
	struct held_walk w = {};
	u64 offset;

	if (c->cpu != cpu + 1 || !per_cpu_offset ||
	    !bpf_core_enum_value_exists(enum migratetype___fbpp, MIGRATE_PCPTYPES___fbpp))
		return;
	if (bpf_probe_read_kernel(&offset, sizeof(offset),
				  (void *)(per_cpu_offset + cpu * sizeof(u64))) ||
	    bpf_probe_read_kernel(&w.pcp, sizeof(w.pcp),
				  (void *)(zone + bpf_core_field_offset(struct zone,
									per_cpu_pageset))))
		return;
	w.pcp += offset;
	w.deadline = deadline;
	w.left = c->budget_entries;
	w.count = c->count;
	if (read_held_count(w.pcp, &before))
		return;
	bpf_loop(bpf_core_field_size(struct per_cpu_pages, lists) /
			 bpf_core_type_size(struct list_head),
		 walk_held, &w, 0);
	if (w.stop || read_held_count(w.pcp, &after) || w.pages != before || w.pages != after) {
		c->unsettled++;
		return;
	}
	c->count = w.count;
	c->held += w.pages;
}

/* Returns the node's struct zone whose name is this pointer, or 0. */
static __always_inline u64 find_zone(u32 node, u64 name, u32 *index)
{
	u64 pgdat = contig_page_data, zone, zone_name;
	u32 i;

	if (!pgdat && bpf_probe_read_kernel(&pgdat, sizeof(pgdat),
					    (void *)(node_data + node * sizeof(u64))))
		return 0;
	for (i = 0; i < MAX_ZONES; i++) {
		if (i * bpf_core_type_size(struct zone) >=
		    bpf_core_field_size(struct pglist_data, node_zones))
			return 0;
		zone = pgdat + bpf_core_field_offset(struct pglist_data, node_zones) +
		       i * bpf_core_type_size(struct zone);
		if (bpf_probe_read_kernel(&zone_name, sizeof(zone_name),
					  (void *)(zone + bpf_core_field_offset(struct zone, name))))
			return 0;
		if (zone_name == name) {
			*index = i;
			return zone;
		}
	}
	return 0;
}

/*
 * Whether the code at the probe runs with interrupts off, as under
 * spin_lock_irqsave(). With PREEMPT_RT that leaves them on.
 *
 * Interrupts may be off for many reasons, but here for one only. The task is in
 * a read of the file, so they were on when the system call began. On the way to
 * the print, seq_file holds a mutex and procfs a reference. Nothing but
 * walk_zones_in_node() switches them off, and it does so to take the lock of
 * the zone that it then prints.
 */
static __always_inline int interrupts_off(struct pt_regs *ctx)
{
#if defined(bpf_target_x86)
	return !(ctx->flags & 0x200); /* X86_EFLAGS_IF */
#elif defined(bpf_target_arm64)
	return (((struct user_pt_regs *)ctx)->pstate & 0x80) != 0; /* PSR_I_BIT */
#endif
}

/* Runs where a zone's print begins: seq_printf(m, "Node %d, zone %8s", node, name). */
SEC("kprobe")
int walk_zone(struct pt_regs *ctx)
{
	u32 zero = 0, index, key, node = PT_REGS_PARM3(ctx);
	struct control *c;
	struct progress *p;
	struct counts *n;
	struct walk w = {};
	struct tally tally;
	u64 start, ns;
	u32 format;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!c || !c->armed || c->task != bpf_get_current_task())
		return 0;
	/* A probe on seq_printf also runs for each order of the zone: skip those. */
	if (bpf_probe_read_kernel(&format, sizeof(format), (void *)PT_REGS_PARM2(ctx)) ||
	    format != 0x65646f4e /* "Node" */)
		return 0;

	if (!interrupts_off(ctx)) {
		c->unlocked++;
		return 0;
	}
	c->locked++;
	start = bpf_ktime_get_ns();
	c->zones++;
	w.zone = node < MAX_NODES ? find_zone(node, PT_REGS_PARM4(ctx), &index) : 0;
	if (!w.zone) {
		c->broken++;
		return 0;
	}
	key = node * MAX_ZONES + index;
	p = bpf_map_lookup_elem(&progress, &key);
	n = bpf_map_lookup_elem(&counts, &key);
	if (!p || !n)
		return 0;
	if (p->request != c->request) {
		p->request = c->request;
		p->last = 0;
		p->slot = 0;
		p->done = 0;
	}
	if (!is_populated(w.zone)) {
		c->finished += !p->done;
		p->done = 1;
		return 0;
	}
	tally.zone = w.zone;
	tally.counts = n;
	bpf_loop(orders(), count_order, &tally, 0);
	/* The lock is also held after the last check of the clock: for the print, too. */
	w.deadline = start + c->budget_ns - c->budget_ns / 64;
	if (p->done) {
		walk_cpu(w.zone, c, w.deadline);
		goto held;
	}

	w.zone_end = w.zone + bpf_core_type_size(struct zone);
	w.left = c->budget_entries;
	w.count = c->count;
	w.slot = p->slot;
	w.last = p->last;
	bpf_loop(orders() * list_types() - p->slot, walk_list, &w, 0);

	p->slot = w.slot;
	p->last = w.last;
	p->done = w.stop == GO_ON || w.stop == STOP_BROKEN;
	if (p->done)
		c->finished++;
	else
		c->unfinished++;
	if (w.stop == STOP_BROKEN)
		c->broken++;
	c->count = w.count;
	c->restarts += w.restarts;
held:
	c->holds++;
	ns = bpf_ktime_get_ns() - start;
	c->walk_ns += ns;
	if (ns > c->hold_max_ns)
		c->hold_max_ns = ns;
	return 0;
}
