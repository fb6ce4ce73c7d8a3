/* SPDX-License-Identifier: Apache-2.0
 *
 * PCI by its two ports. There is no firmware, so nobody has placed the devices'
 * registers in the address space: that is done here.
 */
#ifndef PCI_H
#define PCI_H

#include "cpu.h"

struct pci_device {
	uint8_t slot;
	uint64_t bar[6]; /* addresses; 0 for what is no memory */
};

/* Finds a device on bus 0, and makes it answer at its registers. */
bool pci_find(struct pci_device *d, uint16_t vendor, uint16_t device);

uint32_t pci_read(const struct pci_device *d, uint8_t offset);
uint8_t pci_read8(const struct pci_device *d, uint8_t offset);

/* The next capability of that kind after the one at offset, or the first
 * after 0. 0: there is none. */
uint8_t pci_capability(const struct pci_device *d, uint8_t id, uint8_t offset);

#endif
