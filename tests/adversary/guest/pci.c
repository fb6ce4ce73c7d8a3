/* SPDX-License-Identifier: Apache-2.0 */
#include "pci.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc

#define PCI_COMMAND  0x04 /* status in the upper half */
#define PCI_BAR0     0x10
#define PCI_CAP_LIST 0x34

#define COMMAND_MEMORY       0x2u
#define COMMAND_BUS_MASTER   0x4u
#define COMMAND_NO_INTERRUPT 0x400u

#define BAR_IO    0x1u
#define BAR_64BIT 0x4u

/* Above all RAM that the payload runs with, and below the APICs. */
#define PCI_WINDOW 0xe0000000u

static void select(const struct pci_device *d, uint8_t offset)
{
	outl(CONFIG_ADDRESS, 1u << 31 | d->slot << 11 | (offset & ~3u));
}

uint32_t pci_read(const struct pci_device *d, uint8_t offset)
{
	select(d, offset);
	return inl(CONFIG_DATA);
}

uint8_t pci_read8(const struct pci_device *d, uint8_t offset)
{
	return pci_read(d, offset) >> (offset & 3) * 8;
}

static void pci_write(const struct pci_device *d, uint8_t offset, uint32_t v)
{
	select(d, offset);
	outl(CONFIG_DATA, v);
}

uint8_t pci_capability(const struct pci_device *d, uint8_t id, uint8_t offset)
{
	offset = pci_read8(d, offset ? offset + 1 : PCI_CAP_LIST);
	while (offset && pci_read8(d, offset) != id)
		offset = pci_read8(d, offset + 1);
	return offset;
}

/* Gives each memory BAR an address that is a multiple of its size. */
static void place(struct pci_device *d)
{
	uint32_t next = PCI_WINDOW;

	for (unsigned i = 0; i < 6; i++) {
		uint8_t offset = PCI_BAR0 + 4 * i;
		uint32_t bar = pci_read(d, offset), size;

		pci_write(d, offset, ~0u);
		size = -(pci_read(d, offset) & ~0xfu);
		if (!size || bar & BAR_IO)
			continue;
		next = (next + size - 1) & -size;
		pci_write(d, offset, next);
		d->bar[i] = next;
		next += size;
		if (bar & BAR_64BIT)
			pci_write(d, PCI_BAR0 + 4 * ++i, 0);
	}
}

bool pci_find(struct pci_device *d, uint16_t vendor, uint16_t device)
{
	for (d->slot = 0; d->slot < 32; d->slot++) {
		if (pci_read(d, 0) != (vendor | (uint32_t)device << 16))
			continue;
		place(d);
		pci_write(d, PCI_COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_NO_INTERRUPT);
		return true;
	}
	return false;
}
