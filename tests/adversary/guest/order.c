/* SPDX-License-Identifier: Apache-2.0 */
#include "order.h"

/* A 16550 */
#define PORT        0x2f8
#define DATA        (PORT + 0)
#define FIFO        (PORT + 2)
#define LINE_STATUS (PORT + 5)
#define FIFO_ON     0x07
#define READY       0x01 /* a character has come */
#define EMPTY       0x20 /* the next one may be sent */

/* Each read of the port exits to QEMU, which is slow: wait so long in between. */
#define LOOK_CYCLES 2000000

static char line[512];
static unsigned length;
static uint64_t next_look;

void order_setup(void)
{
	outb(FIFO, FIFO_ON);
}

static void put(char c)
{
	while (!(inb(LINE_STATUS) & EMPTY))
		relax();
	outb(DATA, c);
}

static void put_text(const char *s)
{
	while (*s)
		put(*s++);
}

static void put_number(uint64_t n)
{
	char digits[20];
	unsigned i = 0;

	do
		digits[i++] = '0' + n % 10;
	while (n /= 10);
	while (i)
		put(digits[--i]);
}

/* What follows word in text, or NULL. */
static const char *after(const char *text, const char *word)
{
	for (; *text; text++) {
		const char *t = text, *w = word;

		while (*w && *t == *w)
			t++, w++;
		if (!*w)
			return t;
	}
	return NULL;
}

static uint64_t number(const char *s)
{
	uint64_t n = 0;

	while (*s >= '0' && *s <= '9')
		n = n * 10 + *s++ - '0';
	return n;
}

/* Takes an order out of the line. */
static bool parse(struct order *o)
{
	const char *id = after(line, "\"id\":"), *told = after(line, "\"line\":\"");
	unsigned n = 0;

	if (!id || !told)
		return false;
	o->id = number(id);
	while (told[n] && told[n] != '"' && n < sizeof(o->line) - 1) {
		o->line[n] = told[n];
		n++;
	}
	o->line[n] = 0;
	return true;
}

bool order_next(struct order *o)
{
	if (cycles() < next_look)
		return false;
	while (inb(LINE_STATUS) & READY) {
		char c = inb(DATA);

		if (c != '\n') {
			if (length < sizeof(line) - 1)
				line[length++] = c;
			continue;
		}
		line[length] = 0;
		length = 0;
		if (parse(o))
			return true;
	}
	if (!length)
		next_look = cycles() + LOOK_CYCLES;
	return false;
}

bool order_is(const struct order *o, const char *verb)
{
	const char *s = o->line;

	while (*verb && *s == *verb)
		s++, verb++;
	return !*verb && (!*s || *s == ' ');
}

uint64_t order_number(const struct order *o, const char *key, uint64_t otherwise)
{
	const char *s = o->line;

	while ((s = after(s, " "))) {
		const char *v = s, *k = key;

		while (*k && *v == *k)
			v++, k++;
		if (!*k && *v == '=')
			return number(v + 1);
	}
	return otherwise;
}

void answer_ready(const char *name)
{
	put_text("{\"id\":0,\"ready\":\"");
	put_text(name);
	put_text("\"}\n");
}

void answer_begin(const struct order *o)
{
	put_text("{\"id\":");
	put_number(o->id);
	put_text(",\"output\":\"");
}

void answer_number(const char *key, uint64_t n)
{
	put_text(key);
	put('=');
	put_number(n);
	put(' ');
}

void answer_indexed(const char *key, unsigned index, uint64_t n)
{
	if (!n)
		return;
	put_text(key);
	put('.');
	put_number(index);
	put('=');
	put_number(n);
	put(' ');
}

void answer_end(void)
{
	put_text("\"}\n");
}
