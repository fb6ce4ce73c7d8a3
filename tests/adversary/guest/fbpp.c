/* SPDX-License-Identifier: Apache-2.0 */
#include "fbpp.h"
#include "memory.h"

#define DEVICE_ID  63
#define PAGE_SHIFT 12

enum { EVENTQ = 0, REPORTQ = 1 };
enum { MSG_HELLO = 1, MSG_STARTED = 2, MSG_REPORT = 3 };
enum { MSGF_LAST = 1 };

struct header {
	uint16_t type;
	uint16_t flags;
	uint32_t count;
	uint64_t generation;
	uint32_t status;
	uint8_t page_shift;
	uint8_t reserved[3];
	uint64_t reserved2;
};

struct hello {
	uint32_t features;
	uint8_t max_order;
	uint8_t reserved[3];
	uint64_t ram_bytes;
	char release[64];
	char reason[80];
};

struct trailer {
	uint64_t records;
	uint32_t walk_us;
	uint32_t hold_max_us;
	uint32_t holds;
	uint32_t left_out;
	uint64_t reserved;
};

_Static_assert(sizeof(struct fbpp_event) == 32, "section 6");
_Static_assert(sizeof(struct header) == 32, "section 7");
_Static_assert(sizeof(struct hello) == 160, "section 7.1");
_Static_assert(sizeof(struct trailer) == 32, "section 7.3");

/* A message has a slot of its own until it is used: three descriptors in a row,
 * and memory for what is not in the caller's. */
#define SLOT_DESCRIPTORS 3
#define SLOTS            (VIRTQ_MAX / SLOT_DESCRIPTORS)

static struct slot {
	struct header header;
	union {
		struct hello hello;
		struct trailer trailer;
	};
	bool busy;
} slots[SLOTS];

static struct virtio device;
static struct fbpp_shared *shared;
static struct hello self;
static fbpp_watcher *watch;
static unsigned slot_count, busy;

static void describe(uint16_t at, const void *p, uint32_t len, uint16_t flags)
{
	struct virtq_desc *d = &shared->reportq.desc[at];

	d->addr = (uintptr_t)p;
	d->len = len;
	d->flags = flags;
	d->next = at + 1;
}

/* Takes a free slot, and begins its message. Waits if all slots are taken. */
static unsigned begin(uint16_t type, uint64_t generation)
{
	unsigned s = 0;

	while (busy == slot_count) {
		fbpp_poll();
		relax();
	}
	while (slots[s].busy)
		s++;
	slots[s].busy = true;
	busy++;
	slots[s].header = (struct header){
		.type = type, .generation = generation, .page_shift = PAGE_SHIFT
	};
	describe(s * SLOT_DESCRIPTORS, &slots[s].header, sizeof(struct header), 0);
	return s;
}

/* Adds a further part to the message in a slot. */
static void extend(unsigned s, unsigned part, const void *p, uint32_t len)
{
	uint16_t at = s * SLOT_DESCRIPTORS + part;

	shared->reportq.desc[at - 1].flags = VIRTQ_DESC_NEXT;
	describe(at, p, len, 0);
}

static void offer(unsigned s)
{
	virtq_offer(&shared->reportq, s * SLOT_DESCRIPTORS);
}

void fbpp_say_hello(void)
{
	unsigned s = begin(MSG_HELLO, 0);

	slots[s].hello = self;
	extend(s, 1, &slots[s].hello, sizeof(struct hello));
	offer(s);
	virtq_kick(&shared->reportq);
}

void fbpp_say_started(uint64_t generation)
{
	offer(begin(MSG_STARTED, generation));
	virtq_kick(&shared->reportq);
}

void fbpp_report(uint64_t generation, const uint64_t *records, uint32_t count,
		 uint32_t per_message, uint32_t total)
{
	uint32_t at = 0;

	/* The whole report fits into the ring, so that posting it never waits. */
	if (!per_message || per_message < count / slot_count + 1)
		per_message = per_message ? count / slot_count + 1 : count;
	do {
		unsigned s = begin(MSG_REPORT, generation), part = 1;
		uint32_t n = count - at < per_message ? count - at : per_message;

		slots[s].header.count = n;
		if (n)
			extend(s, part++, records + at, n * sizeof(*records));
		at += n;
		if (at == count && total != FBPP_MORE) {
			slots[s].header.flags = MSGF_LAST;
			slots[s].trailer = (struct trailer){ .records = total, .holds = 1 };
			extend(s, part, &slots[s].trailer, sizeof(struct trailer));
		}
		offer(s);
	} while (at < count);
	watch(FBPP_POSTED);
	virtq_kick(&shared->reportq);
	watch(FBPP_KICKED);
}

void fbpp_poll(void)
{
	uint32_t head, len;

	while (virtq_take_used(&shared->reportq, &head, &len)) {
		struct slot *s = &slots[head / SLOT_DESCRIPTORS];

		s->busy = false;
		busy--;
		if (s->header.type == MSG_REPORT)
			watch(s->header.flags & MSGF_LAST ? FBPP_LAST_USED : FBPP_PART_USED);
	}
}

bool fbpp_idle(void)
{
	return !busy;
}

bool fbpp_next_event(struct fbpp_event *e)
{
	uint32_t head, len;
	bool whole;

	if (!virtq_take_used(&shared->eventq, &head, &len))
		return false;
	whole = len >= sizeof(*e);
	*e = whole ? shared->events[head] : (struct fbpp_event){ 0 };
	virtq_offer(&shared->eventq, head);
	virtq_kick(&shared->eventq);
	return whole;
}

uint32_t fbpp_config_flags(void)
{
	return *(volatile uint32_t *)device.config;
}

static void supply_events(struct virtq *q)
{
	unsigned n = q->size < FBPP_EVENT_BUFFERS ? q->size : FBPP_EVENT_BUFFERS;

	for (unsigned i = 0; i < n; i++) {
		struct fbpp_event *e = &shared->events[i];

		q->desc[i] = (struct virtq_desc){ (uintptr_t)e, sizeof(*e), VIRTQ_DESC_WRITE, 0 };
		virtq_offer(q, i);
	}
}

bool fbpp_start(struct fbpp_shared *memory, uint64_t ram_bytes, unsigned max_order,
		fbpp_watcher *watcher)
{
	static const char release[] = "fbpp adversary";

	watch = watcher;
	self.ram_bytes = ram_bytes;
	self.max_order = max_order;
	copy(self.release, release, sizeof(release));
	busy = 0;
	for (unsigned s = 0; s < SLOTS; s++)
		slots[s].busy = false;

	/* The reset is over when this returns, and the old memory ours again. */
	if (!virtio_begin(&device, DEVICE_ID, VIRTIO_F_VERSION_1) || device.config_len < sizeof(uint32_t))
		return false;
	shared = memory;
	zero(shared, sizeof(*shared));
	if (!virtio_queue(&device, &shared->eventq, EVENTQ) ||
	    !virtio_queue(&device, &shared->reportq, REPORTQ))
		return false;
	slot_count = shared->reportq.size / SLOT_DESCRIPTORS;
	supply_events(&shared->eventq);
	virtio_finish(&device);
	virtq_kick(&shared->eventq);
	fbpp_say_hello();
	return true;
}

void fbpp_stop(void)
{
	virtio_begin(&device, DEVICE_ID, VIRTIO_F_VERSION_1);
}
