/* SPDX-License-Identifier: Apache-2.0
 *
 * A driver for the free page device, written from docs/spec.md. Who asks it to
 * report gets the chance to act at every step: see struct fbpp_watcher.
 */
#ifndef FBPP_H
#define FBPP_H

#include "virtio.h"

enum { /* section 6 */
	FBPP_EV_REPORT_FREE = 1,
	FBPP_EV_CANCEL = 2,
	FBPP_EV_CHANGED = 3,
	FBPP_EVF_HELLO_WANTED = 1,
};

struct fbpp_event {
	uint16_t type;
	uint16_t flags;
	uint32_t budget_us;
	uint64_t generation;
	uint32_t deadline_ms;
	uint32_t budget_entries;
	uint64_t reserved;
};

#define FBPP_EVENT_BUFFERS 16

/* A record (section 7.3) of a block of 2 to the power of order pages. */
static inline uint64_t fbpp_record(uint64_t pfn, unsigned order)
{
	return pfn << 8 | order;
}

enum fbpp_step {
	FBPP_POSTED,    /* the messages are in the ring, the device was not told */
	FBPP_KICKED,    /* it was */
	FBPP_PART_USED, /* it has read a message that is not the last */
	FBPP_LAST_USED, /* it has read the last */
};

typedef void fbpp_watcher(enum fbpp_step step);

/* Memory that the device writes: the rings and the buffers of eventq. */
struct fbpp_shared {
	struct virtq eventq, reportq;
	struct fbpp_event events[FBPP_EVENT_BUFFERS];
};

/*
 * Starts the device, or resets it and starts it again, and says hello. The
 * memory is the device's until the next start.
 */
bool fbpp_start(struct fbpp_shared *memory, uint64_t ram_bytes, unsigned max_order,
		fbpp_watcher *watcher);

/* Resets the device. The memory is the guest's again. */
void fbpp_stop(void);

/* Takes the next event, if there is one. */
bool fbpp_next_event(struct fbpp_event *e);

void fbpp_say_hello(void);
void fbpp_say_started(uint64_t generation);

/*
 * Reports in messages of per_message records at most (0: as many as it takes),
 * and returns without waiting. The records are the device's until fbpp_idle().
 * A report may come in several calls: the one that ends it says how many
 * records there were in all, the others say FBPP_MORE.
 */
void fbpp_report(uint64_t generation, const uint64_t *records, uint32_t count,
		 uint32_t per_message, uint32_t total);

#define FBPP_MORE UINT32_MAX

/* Looks for messages that the device has used, and tells the watcher. */
void fbpp_poll(void);

/* Whether the device has used all messages. */
bool fbpp_idle(void);

/* The flags of the configuration. */
uint32_t fbpp_config_flags(void);

#endif
