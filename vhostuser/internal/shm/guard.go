// SPDX-License-Identifier: Apache-2.0

package shm

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Fault is an access to a mapping with no memory behind it.
type Fault struct {
	// Addr is the faulting address in this process.
	Addr uintptr
}

// Error implements error.
func (e *Fault) Error() string { return fmt.Sprintf("memory fault at %#x", e.Addr) }

// Guard runs f and turns a memory fault inside it into a *Fault. Every other
// panic passes through. It nests.
//
// Go ends the process on SIGBUS unless the goroutine asked for a panic
// (runtime/signal_unix.go, sigpanic); that panic is the only one whose value
// has an Addr method. A nil dereference has none and passes through.
func Guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		if !old {
			debug.SetPanicOnFault(false)
		}
		r := recover()
		if r == nil {
			return
		}
		if re, ok := r.(runtime.Error); ok {
			if fault, ok := re.(interface{ Addr() uintptr }); ok {
				err = &Fault{Addr: fault.Addr()}
				return
			}
		}
		panic(r)
	}()
	return f()
}
