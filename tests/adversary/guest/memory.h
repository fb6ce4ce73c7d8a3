/* SPDX-License-Identifier: Apache-2.0
 *
 * The compiler counts on memcpy and memset; there is no library to have them.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stddef.h>

static inline void copy(void *to, const void *from, size_t n)
{
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static inline void zero(void *p, size_t n)
{
	asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(0) : "memory");
}

#endif
