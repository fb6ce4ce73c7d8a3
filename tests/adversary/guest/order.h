/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders from the host, over the second serial port: the lines of package ctl
 * (tests/guest/ctl), of which "tell" is the only order that is understood. A
 * line of an order is a verb and words key=number, an answer is such words.
 */
#ifndef ORDER_H
#define ORDER_H

#include "cpu.h"

struct order {
	uint64_t id;
	char line[256]; /* what it tells */
};

void order_setup(void);

/* Takes the next order, if there is one. */
bool order_next(struct order *o);

/* Whether the order has that verb. */
bool order_is(const struct order *o, const char *verb);

/* The number that belongs to a key; otherwise the default. */
uint64_t order_number(const struct order *o, const char *key, uint64_t otherwise);

/* An answer is begun, gets its words, and is ended. */
void answer_ready(const char *name);
void answer_begin(const struct order *o);
void answer_number(const char *key, uint64_t number);
void answer_indexed(const char *key, unsigned index, uint64_t number); /* unless it is 0 */
void answer_end(void);

#endif
