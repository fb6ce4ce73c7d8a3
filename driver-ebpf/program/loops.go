// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// function is what checkLoops needs of a function of an object.
type function struct {
	loops     bool     // it calls bpf_loop
	callees   []string // that it calls
	callbacks []string // whose address it loads
}

// checkLoops refuses bpf_loop within a callback of bpf_loop. One loop has 2^23 rounds at most, and
// the verifier bounds each round. A few of them nested never end, for all that a guest can wait.
// Any function whose address is taken counts as a callback.
func checkLoops(all asm.Instructions) error {
	functions := make(map[string]*function)
	var in *function
	for i := range all {
		ins := &all[i]
		if name := ins.Symbol(); name != "" || in == nil {
			in = functions[name]
			if in == nil {
				in = &function{}
				functions[name] = in
			}
		}
		switch {
		case ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == asm.FnLoop:
			in.loops = true
		case ins.IsFunctionCall():
			in.callees = append(in.callees, ins.Reference())
		case ins.IsLoadOfFunctionPointer():
			in.callbacks = append(in.callbacks, ins.Reference())
		}
	}
	seen := make(map[string]bool)
	for _, f := range functions {
		for _, name := range f.callbacks {
			if loops(functions, name, seen) {
				return fmt.Errorf("%s, a callback, calls bpf_loop: %w", name, ErrLimit)
			}
		}
	}
	return nil
}

// loops says whether a function, or what it calls, calls bpf_loop. seen are those that were asked
// before, and do not.
func loops(functions map[string]*function, name string, seen map[string]bool) bool {
	f := functions[name]
	if f == nil || seen[name] {
		return false
	}
	seen[name] = true
	if f.loops {
		return true
	}
	for _, callee := range f.callees {
		if loops(functions, callee, seen) {
			return true
		}
	}
	return false
}
