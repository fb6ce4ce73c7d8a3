/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"
#include "memory.h"

#define APIC_ICR       0xfee00300ul
#define APIC_ICR_HIGH  0xfee00310ul
#define ICR_INIT       0x4500u
#define ICR_START_UP   0x4600u
#define ICR_PENDING    0x1000u

#define TRAMPOLINE 0x8000ul /* a page below 1 MiB */

extern const char trampoline[], trampoline_end[];
extern uint32_t cpus_started;

static volatile uint32_t *apic(uint64_t address)
{
	return (volatile uint32_t *)address;
}

static void send(unsigned cpu, uint32_t command)
{
	*apic(APIC_ICR_HIGH) = cpu << 24;
	*apic(APIC_ICR) = command;
	while (*apic(APIC_ICR) & ICR_PENDING)
		relax();
}

void cpu_start_others(unsigned count)
{
	copy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
	for (unsigned cpu = 1; cpu < count; cpu++) {
		send(cpu, ICR_INIT);
		send(cpu, ICR_START_UP | TRAMPOLINE >> 12);
		while (load(&cpus_started) == cpu)
			relax();
	}
}
