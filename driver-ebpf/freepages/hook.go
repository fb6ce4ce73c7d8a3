// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// Kernel functions that are searched for the hook, or hooked: see mm/vmstat.c.
const (
	printFunction = "frag_show"
	printCallee   = "seq_printf"
	zoneFormat    = "Node %d, zone %8s "
)

// textMax is how much of frag_show is searched. It has about 300 bytes.
const textMax = 2048

// Hook is where the walk is attached.
type Hook struct {
	Symbol string
	Offset uint64
}

// String implements fmt.Stringer.
func (h Hook) String() string { return fmt.Sprintf("%s+%#x", h.Symbol, h.Offset) }

// findHooks returns the places where the walk can be attached, best first: the call in
// frag_show, then the called function. why tells why the call was not found, or is nil.
func findHooks(peek *kernel.Peek) (hooks []Hook, why error) {
	hook, err := findCallHook(peek)
	if err == nil {
		hooks = append(hooks, hook)
	}
	return append(hooks, Hook{Symbol: printCallee}), err
}

func findCallHook(peek *kernel.Peek) (Hook, error) {
	base, err := peek.Symbol(printFunction)
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
		format := make([]byte, len(zoneFormat)+1)
		return peek.Read(addr, format) == nil && string(format) == zoneFormat+"\x00"
	})
	if !ok {
		return Hook{}, fmt.Errorf("find the call of %s in %s: not in its %d bytes",
			printCallee, printFunction, size)
	}
	return Hook{Symbol: printFunction, Offset: uint64(offset)}, nil
}

func (h Hook) attach(prog *ebpf.Program) (link.Link, error) {
	l, err := link.Kprobe(h.Symbol, prog, &link.KprobeOptions{Offset: h.Offset})
	if err != nil {
		return nil, fmt.Errorf("attach kprobe to %v: %w", h, err)
	}
	return l, nil
}
