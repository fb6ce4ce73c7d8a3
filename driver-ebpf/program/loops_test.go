// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// Loops that are nested run for years: only one level is taken.
func TestNestedLoopsAreRefused(t *testing.T) {
	callback := func(name string) asm.Instruction {
		ins := asm.LoadImm(asm.R2, -1, asm.DWord)
		ins.Src = asm.PseudoFunc
		return ins.WithReference(name)
	}
	call := func(name string) asm.Instruction { return asm.Call.Label(name) }
	loop, end := asm.FnLoop.Call(), asm.Return()
	for name, c := range map[string]struct {
		all  asm.Instructions
		fits bool
	}{
		"one level": {fits: true, all: asm.Instructions{
			callback("a").WithSymbol("main"), loop, call("b"), end,
			end.WithSymbol("a"),
			callback("a").WithSymbol("b"), loop, end,
		}},
		"two levels": {all: asm.Instructions{
			callback("a").WithSymbol("main"), loop, end,
			callback("b").WithSymbol("a"), loop, end,
			end.WithSymbol("b"),
		}},
		"two levels, by another function": {all: asm.Instructions{
			callback("a").WithSymbol("main"), loop, end,
			call("b").WithSymbol("a"), end,
			callback("c").WithSymbol("b"), loop, end,
			end.WithSymbol("c"),
		}},
		"in a callback that calls itself": {all: asm.Instructions{
			callback("a").WithSymbol("main"), loop, end,
			call("a").WithSymbol("a"), loop, end,
		}},
	} {
		if err := checkLoops(c.all); c.fits != (err == nil) || !c.fits && !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
