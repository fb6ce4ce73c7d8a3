/* SPDX-License-Identifier: Apache-2.0
 *
 * What the first processor does: it carries out the host's orders, and drives
 * the device.
 */
#include "attack.h"
#include "fbpp.h"
#include "order.h"

#define MAX_RECORDS (256u << 20 >> 12)

extern char image_end[];

static uint64_t ram_bytes;
static unsigned cpus;

/* A snapshot, and the request that it was made for. */
struct snapshot {
	uint64_t generation; /* 0: there is none */
	uint32_t count;
	uint64_t records[MAX_RECORDS];
};

static struct snapshot snapshots[2] NOT_ZEROED;
static unsigned newest;

/* How the next request is answered, by the host's order. */
static struct {
	uint32_t per_message; /* records */
	uint64_t hold;        /* cycles between the walk and the report's end */
	bool halves;          /* post half of the report before that */
	bool restart;         /* and reset the device instead of the other half */
	bool move;            /* when it is read: restart with rings in what was free */
	bool late;            /* report also when the request is void */
	bool stale;           /* repeat the report before the last one first */
} manner;

/* The memory that the device writes is a block of this order. */
#define SHARED_ORDER 2
_Static_assert(sizeof(struct fbpp_shared) <= PAGE_SIZE << SHARED_ORDER, "the block is too small");
static uint32_t shared_pfn, retired_pfn; /* 0: there is none */

static struct {
	uint32_t starts, hellos, asked, reported, cancelled;
} seen;

static uint64_t wanted;   /* generation of a request that is not begun; or 0 */
static uint64_t at_work;  /* generation of the request that is */
static bool muted;        /* a report that is not part of the attack is under way */
static bool moving;       /* the driver moves its rings as soon as it can */

/* QEMU's fw_cfg device knows the machine. */
#define FW_CFG_SELECT   0x510
#define FW_CFG_DATA     0x511
#define FW_CFG_RAM_SIZE 3
#define FW_CFG_CPUS     5

static uint64_t fw_cfg(uint16_t key, unsigned bytes)
{
	uint64_t v = 0;

	outw(FW_CFG_SELECT, key);
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)inb(FW_CFG_DATA) << 8 * i;
	return v;
}

static void watch_step(enum fbpp_step step)
{
	static const enum moment moments[] = {
		[FBPP_POSTED] = MOMENT_POSTED,
		[FBPP_KICKED] = MOMENT_KICKED,
		[FBPP_PART_USED] = MOMENT_PART_USED,
		[FBPP_LAST_USED] = MOMENT_LAST_USED,
	};

	if (muted)
		return;
	attack_reach(moments[step]);
	moving |= manner.move && step == FBPP_LAST_USED;
}

static void take_events(void)
{
	struct fbpp_event e;

	while (fbpp_next_event(&e)) {
		switch (e.type) {
		case FBPP_EV_REPORT_FREE:
			attack_reach(MOMENT_EVENT);
			wanted = e.generation;
			at_work = 0;
			seen.asked++;
			break;
		case FBPP_EV_CANCEL:
			if (wanted == e.generation)
				wanted = 0;
			if (at_work == e.generation)
				at_work = 0;
			seen.cancelled++;
			break;
		case FBPP_EV_CHANGED:
			if (e.flags & FBPP_EVF_HELLO_WANTED) {
				fbpp_say_hello();
				seen.hellos++;
			}
			break;
		}
	}
}

static void drain(void)
{
	while (!fbpp_idle()) {
		fbpp_poll();
		relax();
	}
}

/* A report that the device has to discard: most of its pages are in use. */
static void report_stale(const struct snapshot *s)
{
	muted = true;
	fbpp_report(s->generation, s->records, s->count, manner.per_message, s->count);
	drain();
	muted = false;
}

/*
 * Starts the driver, or restarts it with rings in another place. The old ones
 * are kept until the next time: what the device wrote there must not be lost.
 */
static bool start_driver(void)
{
	uint32_t block = page_lend(shared_pfn + cycles() % page_end, SHARED_ORDER);

	if (block) { /* there is room to move */
		if (retired_pfn)
			page_return(retired_pfn, SHARED_ORDER);
		retired_pfn = shared_pfn;
		shared_pfn = block;
	}
	seen.starts++;
	return fbpp_start((struct fbpp_shared *)((uint64_t)shared_pfn * PAGE_SIZE),
			  ram_bytes, MAX_ORDER, watch_step);
}

/* Posts a report that is taken, in one or two steps. */
static void post(const struct snapshot *s)
{
	uint32_t posted = manner.halves ? s->count / 2 : 0;
	uint64_t begun = cycles();

	if (posted)
		fbpp_report(s->generation, s->records, posted, manner.per_message, FBPP_MORE);
	while (cycles() - begun < manner.hold) {
		fbpp_poll();
		take_events();
	}
	if (manner.restart) {
		start_driver();
	} else if (at_work == s->generation || manner.late) {
		fbpp_report(s->generation, s->records + posted, s->count - posted, manner.per_message, s->count);
		seen.reported++;
	}
}

/* Answers a request. No message is under way. */
static void answer_request(uint64_t generation)
{
	struct snapshot *s = &snapshots[newest ^ 1];

	wanted = 0;
	at_work = generation;
	fbpp_say_started(generation);
	attack_reach(MOMENT_STARTED);
	if (manner.stale && snapshots[newest].generation)
		report_stale(&snapshots[newest]);

	attack_reach(MOMENT_WALK);
	s->generation = generation;
	s->count = page_walk(s->records, MAX_RECORDS);
	newest ^= 1;
	attack_reach(MOMENT_WALKED);
	post(s);
}

static void order_plan(const struct order *o)
{
	struct attack a = {
		.seed = order_number(o, "seed", 1),
		.used = order_number(o, "used", 25),
		.strike = order_number(o, "strike", 32),
		.step = order_number(o, "step", 1000),
		.churn = order_number(o, "churn", 0),
		.pairs = order_number(o, "pairs", 0),
	};

	manner.per_message = order_number(o, "per_message", 0);
	manner.hold = order_number(o, "hold", 0);
	manner.halves = order_number(o, "halves", 0);
	manner.restart = order_number(o, "restart", 0);
	manner.move = order_number(o, "move", 0);
	manner.late = order_number(o, "late", 0);
	manner.stale = order_number(o, "stale", 0);
	attack_prepare(&a, cpus);
	answer_number("free", page_count(PAGE_FREE));
}

static void order_verify(void)
{
	uint32_t checked = 0, lost = 0, lost_at[MOMENTS] = { 0 };
	struct page_damage damage, first = { 0 };

	attack_end();
	for (uint32_t pfn = page_first; pfn < page_end; pfn++) {
		if (pages[pfn].state != PAGE_USED)
			continue;
		checked++;
		if (page_sound(pfn, &damage))
			continue;
		if (!lost++)
			first = damage;
		lost_at[damage.want.moment]++;
		page_rewrite(pfn, MOMENT_BEFORE); /* complain once */
	}
	answer_number("checked", checked);
	answer_number("lost", lost);
	if (lost) {
		answer_number("pfn", first.pfn);
		answer_number("generation", first.want.generation);
		answer_number("found", first.generation);
	}
	for (unsigned m = 0; m < MOMENTS; m++) {
		answer_indexed("struck", m, attack_struck[m]);
		answer_indexed("lost", m, lost_at[m]);
	}
}

static void order_status(void)
{
	answer_number("starts", seen.starts);
	answer_number("hellos", seen.hellos);
	answer_number("asked", seen.asked);
	answer_number("reported", seen.reported);
	answer_number("cancelled", seen.cancelled);
	answer_number("enabled", fbpp_config_flags() & 1);
	answer_number("table", (uintptr_t)pages);
	answer_number("first", page_first);
	answer_number("end", page_end);
}

static void carry_out(const struct order *o)
{
	answer_begin(o);
	if (order_is(o, "plan"))
		order_plan(o);
	else if (order_is(o, "verify"))
		order_verify();
	else if (order_is(o, "status"))
		order_status();
	else if (order_is(o, "restart"))
		start_driver();
	else if (order_is(o, "stop"))
		fbpp_stop();
	answer_end();
}

static _Noreturn void serve(void)
{
	struct order o;

	for (;;) {
		take_events();
		fbpp_poll();
		if (wanted && fbpp_idle())
			answer_request(wanted);
		if (moving) {
			moving = false;
			start_driver();
		}
		attack_poll();
		if (order_next(&o))
			carry_out(&o);
		relax();
	}
}

_Noreturn void cpu_main(unsigned cpu)
{
	bool started;

	if (cpu)
		attack_assist(cpu);
	ram_bytes = fw_cfg(FW_CFG_RAM_SIZE, 8);
	cpus = fw_cfg(FW_CFG_CPUS, 2);
	order_setup();
	snapshots[0].generation = snapshots[1].generation = 0;
	page_setup((uintptr_t)image_end, ram_bytes);
	cpu_start_others(cpus);
	started = start_driver();
	for (uint32_t pfn = page_first; pfn < page_end; pfn++)
		page_take(pfn, MOMENT_BEFORE);
	answer_ready(started ? "adversary" : "no device");
	serve();
}
