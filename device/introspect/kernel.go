// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/kallsyms"
	"github.com/fbpp-project/fbpp/device/introspect/layout"
	"github.com/fbpp-project/fbpp/device/introspect/paging"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/device/introspect/vmcoreinfo"
	"github.com/fbpp-project/fbpp/device/protocol/cmdline"
)

// Kernel is what stays true of a guest's kernel during one boot. It does not
// change and is safe for concurrent use. It is valid as long as its memory is.
type Kernel struct {
	Release string // as uname -r prints it

	mem     *physmem.Memory
	note    *vmcoreinfo.Note
	space   *paging.Space
	symbols kallsyms.Symbols
	layout  *layout.Kernel
	memMap  memMap
}

// Memory returns the memory that the kernel is read from.
func (k *Kernel) Memory() *physmem.Memory { return k.mem }

// NoteAddress returns the guest-physical address of the kernel's note, for
// Options.Hint.
func (k *Kernel) NoteAddress() uint64 { return k.note.GPA }

// Check returns nil if this kernel still runs, in normal operation. It reads
// little memory: call it before each use. The error wraps ErrUnproven when another
// boot has begun, and ErrEnding when this one may be about to end.
//
// A reset of the machine does not change its memory. Check notices the reset only
// after the next kernel has written its trampoline, early in its boot. To know
// earlier, ask the hypervisor.
func (k *Kernel) Check() error {
	anchors, err := readAnchors(k.mem)
	if err == nil {
		err = anchors.check(k.mem, k.space.Root())
	}
	if err == nil {
		var same bool
		if same, err = k.note.Same(k.mem); err == nil && !same {
			err = fmt.Errorf("its note changed: %w", ErrUnproven)
		}
	}
	if err == nil {
		err = k.checkNote()
	}
	if err == nil {
		err = k.checkRunning()
	}
	if err != nil {
		return fmt.Errorf("check the kernel: %w", err)
	}
	return nil
}

// In returns the same kernel in a new description of the guest's memory, such as
// after a module was plugged in. Check the result before use.
func (k *Kernel) In(mem *physmem.Memory) *Kernel {
	moved := *k
	moved.mem, moved.space = mem, k.space.In(mem)
	return &moved
}

// checkNote checks that the kernel's own variable points to the note.
func (k *Kernel) checkNote() error {
	pointer, err := k.variable(symbolNote)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrUnproven)
	}
	m, err := k.space.Translate(pointer)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrUnproven)
	}
	if m.GPA != k.note.GPA {
		return fmt.Errorf("the kernel's note is at %#x, not at %#x: %w",
			m.GPA, k.note.GPA, ErrUnproven)
	}
	return nil
}

// variable reads the 8 bytes at a symbol.
func (k *Kernel) variable(name string) (uint64, error) {
	address, err := k.symbols.Address(name)
	if err != nil {
		return 0, err
	}
	value, err := k.space.Uint64(address)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return value, nil
}

// Ticks returns the kernel's jiffies. They grow while the kernel runs, but may
// stand still while all of its processors are idle.
func (k *Kernel) Ticks() (uint64, error) { return k.variable(symbolJiffies) }

// Content says what the kernel's allocator does with the contents of free pages.
type Content struct {
	PagePoison     bool // free pages hold a pattern that is checked
	DebugPagealloc bool // free pages are not mapped, or hold a pattern
	InitOnFree     bool // free pages hold zeroes that are relied on
	InitOnAlloc    bool
}

// Matters says whether free pages have to keep their contents. InitOnFree does not
// need that: a page that is left out of a migration reads as zeroes.
func (c Content) Matters() bool { return c.PagePoison || c.DebugPagealloc }

// maxCommandLine bounds the kernel's command line; x86 has 2048 bytes.
const maxCommandLine = 16 << 10

// Content reads the kernel's switches. A kernel without the symbol of a switch was
// built without the feature, or has another name for it. Then Content takes the
// feature as on if the kernel's command line asks for it.
func (k *Kernel) Content() (Content, error) {
	var c Content
	for _, s := range []struct {
		on                *bool
		symbol, parameter string
	}{
		{&c.PagePoison, symbolPoison, "page_poison"},
		{&c.DebugPagealloc, symbolDebug, "debug_pagealloc"},
		{&c.InitOnFree, symbolInitFree, "init_on_free"},
		{&c.InitOnAlloc, symbolInitAlloc, "init_on_alloc"},
	} {
		enabled, err := k.word32(s.symbol) // struct static_key begins with a counter
		if errors.Is(err, kallsyms.ErrNoSymbol) {
			line, err := k.commandLine()
			if err != nil {
				return c, err
			}
			*s.on = cmdline.AsksFor(line, s.parameter)
			continue
		}
		if err != nil {
			return c, err
		}
		*s.on = enabled != 0
	}
	return c, nil
}

func (k *Kernel) commandLine() (string, error) {
	pointer, err := k.variable(symbolCommand)
	if err != nil {
		return "", err
	}
	return k.space.String(pointer, maxCommandLine)
}
