// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// As in mmio_amd64.s. The barriers are those of the kernel's readl() and writel()
// (arch/arm64/include/asm/io.h): a load comes before what follows it, a store
// after what was stored to memory.

#define OSHLD $1
#define OSHST $2

// func load8(p unsafe.Pointer) uint8
TEXT ·load8(SB), NOSPLIT, $0-9
	MOVD  p+0(FP), R0
	MOVBU (R0), R1
	DMB   OSHLD
	MOVB  R1, ret+8(FP)
	RET

// func load16(p unsafe.Pointer) uint16
TEXT ·load16(SB), NOSPLIT, $0-10
	MOVD  p+0(FP), R0
	MOVHU (R0), R1
	DMB   OSHLD
	MOVH  R1, ret+8(FP)
	RET

// func load32(p unsafe.Pointer) uint32
TEXT ·load32(SB), NOSPLIT, $0-12
	MOVD  p+0(FP), R0
	MOVWU (R0), R1
	DMB   OSHLD
	MOVW  R1, ret+8(FP)
	RET

// func store8(p unsafe.Pointer, v uint8)
TEXT ·store8(SB), NOSPLIT, $0-9
	MOVD  p+0(FP), R0
	MOVBU v+8(FP), R1
	DMB   OSHST
	MOVB  R1, (R0)
	RET

// func store16(p unsafe.Pointer, v uint16)
TEXT ·store16(SB), NOSPLIT, $0-10
	MOVD  p+0(FP), R0
	MOVHU v+8(FP), R1
	DMB   OSHST
	MOVH  R1, (R0)
	RET

// func store32(p unsafe.Pointer, v uint32)
TEXT ·store32(SB), NOSPLIT, $0-12
	MOVD  p+0(FP), R0
	MOVWU v+8(FP), R1
	DMB   OSHST
	MOVW  R1, (R0)
	RET
