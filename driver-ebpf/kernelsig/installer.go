// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// ErrLarge says that a program does not fit into an installer.
var ErrLarge = errors.New("it is too large for a signature that the kernel checks")

// Installer is what the kernel checks a signature against: a program without maps, of type syscall,
// that loads another. It has all of that in its own instructions, but for the maps. It first writes
// it into its context, which is memory of the kernel.
type Installer struct {
	Bytes []byte   // what is signed; little endian
	Maps  []string // that the program uses: their descriptors are the context's

	context int // its size in bytes
}

// The context of an installer. All but the program's parts are the caller's to fill in, and not
// signed. The level of the verifier's log and its size have 4 bytes each, its address has 8.
const (
	contextLogLevel = 0
	contextLogSize  = 4
	contextLog      = 8
	contextMaps     = 16 // and on: descriptors of 4 bytes each, then the parts of the program

	maxContext = 1 << 15 // what an instruction can reach
)

// Places in union bpf_attr of linux/bpf.h, for BPF_BTF_LOAD and BPF_PROG_LOAD.
const (
	attrTypes         = 0
	attrTypesLog      = 8
	attrTypesSize     = 16
	attrTypesLogSize  = 20
	attrTypesLogLevel = 24
	sizeTypesLoad     = 28

	attrKind            = 0
	attrCount           = 4
	attrCode            = 8
	attrLicense         = 16
	attrLogLevel        = 24
	attrLogSize         = 28
	attrLog             = 32
	attrFlags           = 44
	attrName            = 48
	attrTypesFD         = 72
	attrFunctionSize    = 76
	attrFunctions       = 80
	attrFunctionCount   = 88
	attrRelocationCount = 116
	attrMaps            = 120
	attrRelocations     = 128
	attrRelocationSize  = 136
	sizeProgramLoad     = 140

	sizeAttr = 144 // of the larger, in whole words
)

// NewInstaller makes the installer of a program that was read from an ELF file.
func NewInstaller(file []byte, p *ebpf.ProgramSpec) (_ *Installer, err error) {
	defer func() { // the parser of ELF is not ours
		if r := recover(); r != nil {
			err = fmt.Errorf("parse the object: %v", r)
		}
	}()
	c, err := link(p)
	if err != nil {
		return nil, err
	}
	a, err := c.describe(file)
	if err != nil {
		return nil, err
	}
	m := maker{size: contextMaps + 4*len(c.maps)}
	m.add(asm.Mov.Reg(asm.R6, asm.R1)) // the context
	types, insns, license := m.part(a.types), m.part(c.bytes), m.part(append([]byte(p.License), 0))
	functions, relocations := m.part(a.functions), m.part(a.relocations)
	// Nobody reads the names. They are signed with the rest, so that no index stands for another
	// map than the signer's.
	m.part([]byte(strings.Join(c.maps, "\x00") + "\x00"))
	if m.size > maxContext {
		return nil, fmt.Errorf("%d bytes, at most %d: %w", m.size, maxContext, ErrLarge)
	}

	m.clear()
	m.pointer(attrTypes, types)
	m.number(attrTypesSize, uint32(len(a.types)))
	m.copy(attrTypesLog, contextLog, asm.DWord)
	m.copy(attrTypesLogSize, contextLogSize, asm.Word)
	m.copy(attrTypesLogLevel, contextLogLevel, asm.Word)
	m.call(unix.BPF_BTF_LOAD, sizeTypesLoad)
	m.add(asm.JSLT.Imm(asm.R0, 0, "out"), asm.Mov.Reg(asm.R7, asm.R0))

	m.clear()
	m.number(attrKind, uint32(p.Type))
	m.number(attrCount, uint32(len(c.bytes)/8))
	m.pointer(attrCode, insns)
	m.pointer(attrLicense, license)
	m.copy(attrLogLevel, contextLogLevel, asm.Word)
	m.copy(attrLogSize, contextLogSize, asm.Word)
	m.copy(attrLog, contextLog, asm.DWord)
	m.number(attrFlags, p.Flags)
	name := make([]byte, 16)
	copy(name[:15], p.Name)
	for i := 0; i < len(name); i += 4 {
		m.number(attrName+i, get32(name[i:]))
	}
	m.add(asm.StoreMem(asm.RFP, attrTypesFD-sizeAttr, asm.R7, asm.Word))
	m.number(attrFunctionSize, functionSize)
	m.pointer(attrFunctions, functions)
	m.number(attrFunctionCount, uint32(len(a.functions)/functionSize))
	m.pointer(attrMaps, contextMaps)
	m.pointer(attrRelocations, relocations)
	m.number(attrRelocationCount, uint32(len(a.relocations)/relocationSize))
	m.number(attrRelocationSize, relocationSize)
	m.call(unix.BPF_PROG_LOAD, sizeProgramLoad)
	m.add(
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R7), asm.FnSysClose.Call(), // the program keeps its types
		asm.Mov.Reg(asm.R0, asm.R8),
		asm.Return().WithSymbol("out"), // the descriptor, or an error as a negative number
	)
	var b bytes.Buffer
	if err := m.insns.Marshal(&b, binary.LittleEndian); err != nil {
		return nil, fmt.Errorf("make the installer: %w", err)
	}
	return &Installer{b.Bytes(), c.maps, m.size}, nil
}

// ReadInstaller makes the installer of the only program in an ELF file.
func ReadInstaller(file []byte) (in *Installer, err error) {
	defer func() { // the parser of ELF and BTF is not ours
		if r := recover(); r != nil {
			in, err = nil, fmt.Errorf("parse the object: %v", r)
		}
	}()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("parse the object: %w", err)
	}
	if n := len(spec.Programs); n != 1 {
		return nil, fmt.Errorf("parse the object: it has %d programs instead of one", n)
	}
	for _, p := range spec.Programs {
		in, err = NewInstaller(file, p)
	}
	return in, err
}

// maker writes an installer. R6 is the context, and union bpf_attr is on the stack.
type maker struct {
	insns asm.Instructions
	size  int // of the context
}

func (m *maker) add(insns ...asm.Instruction) { m.insns = append(m.insns, insns...) }

// part writes data into the context, and returns where. All of it is written: what the caller has
// put there must not count.
func (m *maker) part(data []byte) (at int) {
	at = (m.size + 7) &^ 7
	m.size = at + (len(data)+7)&^7
	if m.size > maxContext {
		return at
	}
	data = append(slices.Clone(data), make([]byte, m.size-at-len(data))...)
	for i := 0; i < len(data); i += 8 {
		m.add(
			asm.LoadImm(asm.R1, int64(binary.LittleEndian.Uint64(data[i:])), asm.DWord),
			asm.StoreMem(asm.R6, int16(at+i), asm.R1, asm.DWord),
		)
	}
	return at
}

func (m *maker) clear() {
	m.add(asm.Mov.Imm(asm.R1, 0))
	for i := 0; i < sizeAttr; i += 8 {
		m.add(asm.StoreMem(asm.RFP, int16(i-sizeAttr), asm.R1, asm.DWord))
	}
}

// number sets a member of 4 bytes.
func (m *maker) number(at int, value uint32) {
	m.add(asm.StoreImm(asm.RFP, int16(at-sizeAttr), int64(int32(value)), asm.Word))
}

// pointer sets a member to an address in the context.
func (m *maker) pointer(at, context int) {
	m.add(
		asm.Mov.Reg(asm.R1, asm.R6), asm.Add.Imm(asm.R1, int32(context)),
		asm.StoreMem(asm.RFP, int16(at-sizeAttr), asm.R1, asm.DWord),
	)
}

// copy sets a member to what the context has.
func (m *maker) copy(at, context int, size asm.Size) {
	m.add(
		asm.LoadMem(asm.R1, asm.R6, int16(context), size),
		asm.StoreMem(asm.RFP, int16(at-sizeAttr), asm.R1, size),
	)
}

// call makes a system call bpf(2) with the first bytes of union bpf_attr.
func (m *maker) call(command, size int32) {
	m.add(
		asm.Mov.Imm(asm.R1, command),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -sizeAttr),
		asm.Mov.Imm(asm.R3, size), asm.FnSysBpf.Call(),
	)
}
