/* SPDX-License-Identifier: Apache-2.0
 *
 * From the reset vector to cpu_main() in long mode. The image is a ROM at the
 * end of the first 4 GiB; no firmware runs before it. The payload is linked for
 * RAM, and copied there from the ROM's beginning.
 *
 * The C code runs at privilege level 3, with all ports and all memory in its
 * reach. It has no use for more, and a KVM that cannot run a whole kernel may
 * still run user code on the processor itself, with real page faults, where it
 * interprets level 0 one instruction after the other.
 */

#define ROM_BASE   0xffff0000
#define LOW_STACK  0x7000
#define CODE32     0x08
#define DATA       0x10
#define CODE64     0x18
#define USER_DATA  0x23                 /* with the level in the low bits */
#define USER_CODE  0x2b
#define FLAGS      0x3002               /* interrupts off, ports for level 3 */

        .section .boot, "ax"

        .code16
start16:
        cli
        cld
        lgdtl   %cs:gdt_pointer - ROM_BASE
        movl    %cr0, %eax
        orb     $1, %al                 /* PE */
        movl    %eax, %cr0
        ljmpl   $CODE32, $start32

        .code32
start32:
        movw    $DATA, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $LOW_STACK, %esp

        movl    $payload_rom, %esi
        movl    $payload_start, %edi
        movl    $payload_words, %ecx
        rep movsl
        xorl    %eax, %eax
        movl    $bss_start, %edi
        movl    $bss_words, %ecx
        rep stosl

        movl    $make_page_tables, %eax
        call    *%eax
        movl    $enter_long_mode, %eax
        jmp     *%eax

        /* A processor notes in a descriptor that it was used. These say so
         * from the start, as a ROM takes no notes. */
        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* CODE32 */
        .quad   0x00cf93000000ffff      /* DATA */
        .quad   0x00af9b000000ffff      /* CODE64 */
        .quad   0x00cff3000000ffff      /* USER_DATA */
        .quad   0x00affb000000ffff      /* USER_CODE */
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt

        .section .reset, "ax"
        .globl  reset
        .code16
reset:  jmp     start16

/* What follows runs in RAM. */

        .text
        .code32

/* Maps the first 4 GiB one to one, in pages of 2 MiB, for all levels. */
make_page_tables:
        movl    $page_directory_pointers + 7, page_map
        movl    $page_directories + 7, %eax
        movl    $page_directory_pointers, %edi
        movl    $4, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    1b
        movl    $0x87, %eax             /* present, writable, user, large */
        movl    $page_directories, %edi
        movl    $4 * 512, %ecx
2:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    2b
        ret

/* Every processor comes here, in protected mode. */
enter_long_mode:
        movl    %cr4, %eax
        orl     $1 << 5, %eax           /* PAE */
        movl    %eax, %cr4
        movl    $page_map, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       /* EFER */
        rdmsr
        orl     $1 << 8, %eax           /* LME */
        wrmsr
        movl    %cr0, %eax
        orl     $1 << 31, %eax          /* PG */
        movl    %eax, %cr0
        ljmpl   $CODE64, $long_mode

        .code64
long_mode:
        movl    $1, %edi                /* cpu_main's argument */
        lock xaddl %edi, cpus_started
        leal    1(%rdi), %ecx
        shll    $14, %ecx               /* STACK_SIZE */
        leaq    stacks(%rcx), %rcx
        movq    %rcx, %rsp
        pushq   $USER_DATA
        pushq   %rcx
        pushq   $FLAGS
        pushq   $USER_CODE
        pushq   $enter_c
        iretq

enter_c:
        xorl    %ebp, %ebp
        call    cpu_main                /* does not return */

/* Where a processor other than the first begins. It is copied to where the
 * start-up interrupt says. */
        .code16
        .globl  trampoline, trampoline_end
trampoline:
        cli
        cld
        lgdtl   %cs:trampoline_gdt_pointer - trampoline
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $CODE32, $trampoline32
trampoline_gdt_pointer:
        .word   6 * 8 - 1
        .long   gdt
trampoline_end:

        .code32
trampoline32:
        movw    $DATA, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        jmp     enter_long_mode

        .bss
        .balign 4096
page_map:
        .skip   4096
page_directory_pointers:
        .skip   4096
page_directories:
        .skip   4 * 4096
stacks: .skip   4 << 14                 /* MAX_CPUS of STACK_SIZE */
        .globl  cpus_started
cpus_started:
        .skip   4

        .section .note.GNU-stack, "", @progbits
