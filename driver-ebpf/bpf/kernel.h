/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel types that the programs read. CO-RE relocates each access with the
 * BTF of the running kernel. So only the names matter here, and neither offsets
 * nor the members that are left out. Nor do sizes, with one exception: a struct
 * that is a member of another and is loaded has to be whole, because the kernel's
 * own relocation, which programs with a signature for it get, compares that.
 */
#ifndef FBPP_KERNEL_H
#define FBPP_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

typedef __u8 u8;
typedef __u32 u32;
typedef __u64 u64;

enum { BPF_MAP_TYPE_ARRAY = 2 };
enum { BPF_F_MMAPABLE = 1 << 10 };

/* Makes bpf_tracing.h use the kernel's names of registers. */
#define __VMLINUX_H__

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Whole: see above. */
struct list_head {
	struct list_head *next, *prev;
};

struct counter {
	int counter;
};

struct page {
	struct list_head lru;
	unsigned int page_type;
	unsigned long private;
	struct counter _refcount;
};

struct per_cpu_pages {
	int count;
	struct list_head lists[1];
};

struct free_area {
	struct list_head free_list[1];
	unsigned long nr_free;
};

struct zone {
	unsigned long present_pages;
	struct per_cpu_pages *per_cpu_pageset;
	const char *name;
	struct free_area free_area[1];
};

struct pglist_data {
	struct zone node_zones[1];
};

/* The registers that PT_REGS_PARM1() to PT_REGS_PARM4() and interrupts_off() read. */
#if defined(bpf_target_x86)
struct pt_regs {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long cx;
	unsigned long flags;
};
#elif defined(bpf_target_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 pstate;
};
#endif

#pragma clang attribute pop

/* The suffix after ___ is ours: CO-RE ignores it. */
enum migratetype___fbpp { MIGRATE_PCPTYPES___fbpp = 1, MIGRATE_ISOLATE___fbpp = 2 };
enum pagetype___fbpp { PGTY_buddy___fbpp = 1 };

#endif
