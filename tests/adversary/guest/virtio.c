/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio.h"

#define VENDOR      0x1af4
#define DEVICE_BASE 0x1040

#define PCI_CAP_VENDOR 0x09

/* struct virtio_pci_cap (VIRTIO 1.2, 4.1.4) */
#define CAP_TYPE   3
#define CAP_BAR    4
#define CAP_OFFSET 8
#define CAP_LENGTH 12
#define CAP_NOTIFY_MULTIPLIER 16

enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_DEVICE = 4 };

/* struct virtio_pci_common_cfg (4.1.4.3) */
enum {
	DEVICE_FEATURE_SELECT = 0,
	DEVICE_FEATURE = 4,
	DRIVER_FEATURE_SELECT = 8,
	DRIVER_FEATURE = 12,
	DEVICE_STATUS = 20,
	QUEUE_SELECT = 22,
	QUEUE_SIZE = 24,
	QUEUE_ENABLE = 28,
	QUEUE_NOTIFY_OFF = 30,
	QUEUE_DESC = 32,
	QUEUE_DRIVER = 40,
	QUEUE_DEVICE = 48,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY     1

static volatile uint8_t *reg8(struct virtio *v, unsigned at)
{
	return v->common + at;
}

static volatile uint16_t *reg16(struct virtio *v, unsigned at)
{
	return (volatile uint16_t *)(v->common + at);
}

static volatile uint32_t *reg32(struct virtio *v, unsigned at)
{
	return (volatile uint32_t *)(v->common + at);
}

/* 64-bit fields are written as two halves, as the standard wants. */
static void write_address(struct virtio *v, unsigned at, const volatile void *p)
{
	*reg32(v, at) = (uint32_t)(uintptr_t)p;
	*reg32(v, at + 4) = (uint64_t)(uintptr_t)p >> 32;
}

/* Finds the first structure of a type, and returns its capability. */
static uint8_t structure(struct virtio *v, uint8_t type, volatile uint8_t **where)
{
	uint8_t cap = 0;

	while ((cap = pci_capability(&v->pci, PCI_CAP_VENDOR, cap))) {
		uint8_t bar = pci_read8(&v->pci, cap + CAP_BAR);

		if (pci_read8(&v->pci, cap + CAP_TYPE) != type || bar > 5 || !v->pci.bar[bar])
			continue;
		*where = (volatile uint8_t *)(v->pci.bar[bar] + pci_read(&v->pci, cap + CAP_OFFSET));
		return cap;
	}
	return 0;
}

static bool find(struct virtio *v, uint16_t id)
{
	uint8_t cap;

	if (!pci_find(&v->pci, VENDOR, DEVICE_BASE + id) || !structure(v, CAP_COMMON, &v->common))
		return false;
	cap = structure(v, CAP_NOTIFY, &v->notify);
	if (!cap)
		return false;
	v->notify_multiplier = pci_read(&v->pci, cap + CAP_NOTIFY_MULTIPLIER);
	cap = structure(v, CAP_DEVICE, &v->config);
	v->config_len = cap ? pci_read(&v->pci, cap + CAP_LENGTH) : 0;
	return true;
}

bool virtio_begin(struct virtio *v, uint16_t id, uint64_t features)
{
	if (!find(v, id))
		return false;
	*reg8(v, DEVICE_STATUS) = 0;
	while (*reg8(v, DEVICE_STATUS))
		relax();
	*reg8(v, DEVICE_STATUS) = ACKNOWLEDGE;
	*reg8(v, DEVICE_STATUS) = ACKNOWLEDGE | DRIVER;
	for (unsigned half = 0; half < 2; half++) {
		*reg32(v, DEVICE_FEATURE_SELECT) = half;
		*reg32(v, DRIVER_FEATURE_SELECT) = half;
		*reg32(v, DRIVER_FEATURE) = *reg32(v, DEVICE_FEATURE) & features >> 32 * half;
	}
	*reg8(v, DEVICE_STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK;
	return *reg8(v, DEVICE_STATUS) & FEATURES_OK;
}

bool virtio_queue(struct virtio *v, struct virtq *q, uint16_t index)
{
	*reg16(v, QUEUE_SELECT) = index;
	q->size = *reg16(v, QUEUE_SIZE);
	if (!q->size)
		return false;
	if (q->size > VIRTQ_MAX)
		*reg16(v, QUEUE_SIZE) = q->size = VIRTQ_MAX;
	q->index = index;
	q->avail.flags = AVAIL_NO_INTERRUPT;
	q->doorbell = (volatile uint16_t *)(v->notify +
					    *reg16(v, QUEUE_NOTIFY_OFF) * v->notify_multiplier);
	write_address(v, QUEUE_DESC, q->desc);
	write_address(v, QUEUE_DRIVER, &q->avail);
	write_address(v, QUEUE_DEVICE, &q->used);
	*reg16(v, QUEUE_ENABLE) = 1;
	return true;
}

void virtio_finish(struct virtio *v)
{
	*reg8(v, DEVICE_STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
}

void virtq_offer(struct virtq *q, uint16_t head)
{
	uint16_t idx = q->avail.idx;

	q->avail.ring[idx & (q->size - 1)] = head;
	store(&q->avail.idx, idx + 1);
}

void virtq_kick(struct virtq *q)
{
	full_fence(); /* the device looks at idx after it has allowed kicks */
	if (!(load(&q->used.flags) & USED_NO_NOTIFY))
		*q->doorbell = q->index;
}

bool virtq_take_used(struct virtq *q, uint32_t *head, uint32_t *len)
{
	uint16_t slot = q->seen & (q->size - 1);

	if (load(&q->used.idx) == q->seen)
		return false;
	*head = q->used.ring[slot].id;
	*len = q->used.ring[slot].len;
	q->seen++;
	return true;
}
