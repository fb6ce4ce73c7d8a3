/* SPDX-License-Identifier: Apache-2.0
 *
 * A modern virtio device over PCI with split rings, without interrupts: the
 * adversary looks, so as to see an event at once.
 */
#ifndef VIRTIO_H
#define VIRTIO_H

#include "pci.h"

#define VIRTIO_F_VERSION_1 (1ull << 32)

#define VIRTQ_MAX 256 /* descriptors */

#define VIRTQ_DESC_NEXT  1
#define VIRTQ_DESC_WRITE 2

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct virtq_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[VIRTQ_MAX];
};

struct virtq_used {
	uint16_t flags;
	uint16_t idx;
	struct {
		uint32_t id;
		uint32_t len;
	} ring[VIRTQ_MAX];
};

struct virtq {
	struct virtq_desc desc[VIRTQ_MAX] __attribute__((aligned(16)));
	struct virtq_avail avail;
	struct virtq_used used __attribute__((aligned(4)));
	volatile uint16_t *doorbell;
	uint16_t index;
	uint16_t size;
	uint16_t seen; /* entries taken from the used ring */
};

struct virtio {
	struct pci_device pci;
	volatile uint8_t *common;
	volatile uint8_t *notify;
	uint32_t notify_multiplier;
	volatile uint8_t *config; /* the device's own, config_len bytes */
	uint32_t config_len;
};

/* Finds the device, resets it, and accepts the features of those it offers. */
bool virtio_begin(struct virtio *v, uint16_t id, uint64_t features);

/* Makes a queue, all zero, known to the device: between begin and finish. */
bool virtio_queue(struct virtio *v, struct virtq *q, uint16_t index);

/* DRIVER_OK. */
void virtio_finish(struct virtio *v);

/* Puts a chain that begins at descriptor head into the available ring. */
void virtq_offer(struct virtq *q, uint16_t head);

/* Notifies the device of offered chains, unless it has suppressed that. */
void virtq_kick(struct virtq *q);

/* Takes the next entry from the used ring, if there is one. */
bool virtq_take_used(struct virtq *q, uint32_t *head, uint32_t *len);

#endif
