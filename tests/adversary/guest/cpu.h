/* SPDX-License-Identifier: Apache-2.0
 *
 * The processor: ports, memory order, time, and the others of its kind.
 */
#ifndef CPU_H
#define CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_CPUS 4 /* as in boot.S */

static inline void outb(uint16_t port, uint8_t v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t v)
{
	asm volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t v)
{
	asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t v;

	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

/* Cycles of the time stamp counter: the payload's only clock. */
static inline uint64_t cycles(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (uint64_t)high << 32;
}

static inline void relax(void)
{
	asm volatile("pause" : : : "memory");
}

/* Acquire and release: what x86 does anyway, and the compiler must not undo. */
#define load(p)     __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define full_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* For what is large and need not be zero at the start. */
#define NOT_ZEROED __attribute__((section(".noinit")))

struct lock {
	uint32_t taken;
};

static inline void lock(struct lock *l)
{
	while (__atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE))
		relax();
}

static inline void unlock(struct lock *l)
{
	store(&l->taken, 0);
}

/* Starts the other processors. They run cpu_main(). */
void cpu_start_others(unsigned count);

/* Runs on every processor; the first one is number 0. */
_Noreturn void cpu_main(unsigned cpu);

#endif
