// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Programs with which user space reads facts about the running kernel. They
 * are run by BPF_PROG_RUN only and are not attached to anything.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

#define PEEK_BYTES 2048
#define PEEK_NAME 64

/* Shared with kernel/peek.go. */
struct peek {
	u64 address;	      /* in: of read_memory; out: of find_symbol */
	u64 task;	      /* out: of current_task */
	u32 name_len;	      /* in: with the final 0 */
	u32 size;	      /* in: of read_memory */
	char name[PEEK_NAME]; /* in: of find_symbol */
	u8 bytes[PEEK_BYTES]; /* out: of read_memory and describe */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct peek);
} peek SEC(".maps");

static __always_inline struct peek *exchange(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&peek, &zero);
}

SEC("syscall")
int find_symbol(void *ctx)
{
	struct peek *p = exchange();
	u32 len;

	if (!p)
		return -1;
	len = p->name_len;
	if (len > PEEK_NAME)
		return -1;
	return bpf_kallsyms_lookup_name(p->name, len, 0, &p->address);
}

SEC("syscall")
int read_memory(void *ctx)
{
	struct peek *p = exchange();
	u32 size;

	if (!p)
		return -1;
	size = p->size;
	if (size > PEEK_BYTES)
		return -1;
	return bpf_probe_read_kernel(p->bytes, size, (void *)p->address);
}

/* Writes the function at the address to bytes, as name+offset/size. */
SEC("syscall")
int describe(void *ctx)
{
	static const char format[] = "%pS";
	struct peek *p = exchange();

	if (!p)
		return -1;
	return bpf_snprintf((char *)p->bytes, PEEK_BYTES, format, &p->address,
			    sizeof(p->address));
}

SEC("syscall")
int current_task(void *ctx)
{
	struct peek *p = exchange();

	if (!p)
		return -1;
	p->task = bpf_get_current_task();
	return 0;
}
