// SPDX-License-Identifier: Apache-2.0

package source

import (
	"slices"
	"time"
)

// Phase is a named part of an exchange.
type Phase struct {
	Name string
	Time time.Duration
}

// The names of phases. A new one is added to Phases, too.
const (
	PhaseInject   = "inject"   // waiting until a program of the host is in use
	PhaseWakeup   = "wakeup"   // of the driver: until its first sign of life
	PhaseDrop     = "drop"     // the guest dropped cold cache, as the guest measured it
	PhaseWalk     = "walk"     // the guest's walk, as the guest measured it
	PhaseTransfer = "transfer" // until the last record was there
	PhaseDecode   = "decode"   // of the records

	PhaseFind  = "find"  // of introspection: finding the kernel, or checking it
	PhaseScan  = "scan"  // reading the memory map
	PhasePeek  = "peek"  // asking which pages were written
	PhaseSieve = "sieve" // dropping what was read of these

	PhaseOrder = "order" // of the device: waiting for an order, and settling it
	PhaseWrite = "write" // writing the ranges into the window
)

// Phases returns the names of all phases. Nobody else's names are shown to those who
// keep figures by name.
func Phases() []string {
	return []string{
		PhaseInject, PhaseWakeup, PhaseDrop, PhaseWalk, PhaseTransfer, PhaseDecode, PhaseFind, PhaseScan,
		PhasePeek, PhaseSieve, PhaseOrder, PhaseWrite,
	}
}

// IsPhase says whether there is a phase of this name.
func IsPhase(name string) bool { return slices.Contains(Phases(), name) }
