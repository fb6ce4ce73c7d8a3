// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// printCallee is the kernel function that prints a zone's first line.
const printCallee = "seq_printf"

// textMax is how much of a function's code is searched. They have 300 to 1300 bytes.
const textMax = 4096

// Hook is where the walk is attached, and the file whose read leads there.
type Hook struct {
	Symbol string
	Offset uint64
	File   string
}

// String implements fmt.Stringer.
func (h Hook) String() string {
	return fmt.Sprintf("%s+%#x by %s", h.Symbol, h.Offset, h.File)
}

// findHooks returns the places where the walk can be attached, best first: the calls in the
// functions that print a file, then the called function. why tells which calls were not found
// and why, or is nil.
func findHooks(peek *kernel.Peek) (hooks []Hook, why error) {
	var slower []Hook
	for _, print := range zonePrints() {
		hook, err := findCallHook(peek, print)
		if err == nil {
			hooks = append(hooks, hook)
		}
		why = errors.Join(why, err)
		slower = append(slower, Hook{Symbol: printCallee, File: print.path})
	}
	return append(hooks, slower...), why
}

// findCallHook looks in each function that may have the call.
func findCallHook(peek *kernel.Peek, print zonePrint) (Hook, error) {
	var why error
	for _, function := range print.functions {
		hook, err := findCallIn(peek, print, function)
		if err == nil {
			return hook, nil
		}
		why = errors.Join(why, err)
	}
	return Hook{}, why
}

func findCallIn(peek *kernel.Peek, print zonePrint, function string) (Hook, error) {
	base, err := peek.Symbol(function)
	if err != nil {
		return Hook{}, err
	}
	callee, err := peek.Symbol(printCallee)
	if err != nil {
		return Hook{}, err
	}
	_, size, err := peek.Function(base)
	if err != nil {
		return Hook{}, err
	}
	text := make([]byte, min(size, textMax))
	if err := peek.Read(base, text); err != nil {
		return Hook{}, err
	}
	offset, ok := findCall(text, base, callee, func(addr uint64) bool {
		format := make([]byte, len(print.format)+1)
		return peek.Read(addr, format) == nil && string(format) == print.format+"\x00"
	})
	if !ok {
		return Hook{}, fmt.Errorf("find the call of %s in %s: not in its %d bytes",
			printCallee, function, size)
	}
	return Hook{Symbol: function, Offset: uint64(offset), File: print.path}, nil
}

func (h Hook) attach(prog *ebpf.Program) (link.Link, error) {
	l, err := link.Kprobe(h.Symbol, prog, &link.KprobeOptions{Offset: h.Offset})
	if err != nil {
		return nil, fmt.Errorf("attach kprobe to %v: %w", h, err)
	}
	return l, nil
}
