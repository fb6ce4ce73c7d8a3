// SPDX-License-Identifier: Apache-2.0

// Package kernelsig has the kernel itself check who signed a program, as Linux does since 6.18
// (Documentation/bpf/signing.rst of Linux 7.3).
//
// The kernel checks a signature of the instructions that it is handed. Those of an ordinary program
// cannot be signed: descriptors of maps are written into them, and places of the kernel's
// structures. Since 7.3 a program that is signed cannot even have maps that change. So what is
// signed is an [Installer], which has the program inside it, and no maps of its own. The kernel
// checks it, and runs it; it loads the program, and the kernel does the relocations.
//
// The signature so covers the program's instructions, its types and relocations, its type, flags
// and license, and the names of the maps. It does not cover how the maps are made, nor the
// constants that the agent sets in them. Nor does it cover where the program is attached, nor that
// it is this one that is used: that is the agent's.
//
// The signature is PKCS#7, and follows the ELF file, as a module's does. An agent that does not
// know of it loads the program as ever.
package kernelsig
