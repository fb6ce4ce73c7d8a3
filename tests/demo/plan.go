// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

// Sizes in MiB. Both ends of a migration hold the whole guest, and what else
// runs needs its share: an 8 GiB guest wants 20 GiB.
const (
	fullGuest    = 8 << 10
	fullHost     = 20 << 10
	smallestDemo = 1 << 10
	pageMiB      = 256 // pages of 4 KiB in one MiB
)

// plan says how large the demo is.
type plan struct {
	series   guest.Series
	guestMiB int
	fillMiB  int // touched and given back before each migration
	hostMiB  int // what the host had free
}

// makePlan picks sizes for the memory that this machine has free now.
func makePlan(wanted int) (plan, error) {
	host, err := lab.HostMemoryMiB()
	if err != nil {
		return plan{}, fmt.Errorf("plan the demo: %w", err)
	}
	return planFor(host, wanted)
}

// planFor picks sizes for a host with so much free memory. A wanted size of 0
// is the usual one.
func planFor(host, wanted int) (plan, error) {
	p := plan{hostMiB: host, guestMiB: wanted}
	if wanted == 0 {
		p.guestMiB = fullGuest
		if host < fullHost {
			p.guestMiB = (host * fullGuest / fullHost) &^ 255
		}
	}
	if p.guestMiB < smallestDemo {
		return p, fmt.Errorf("plan the demo: %d MiB of free memory are too little, a guest of %d MiB wants %d",
			host, smallestDemo, smallestDemo*fullHost/fullGuest)
	}
	p.fillMiB = p.guestMiB * 7 / 8
	return p, nil
}

// String implements fmt.Stringer.
func (p plan) String() string {
	s := fmt.Sprintf("A guest of %s fills %s and gives them back, then it is migrated.", gib(p.guestMiB), gib(p.fillMiB))
	if p.guestMiB < fullGuest {
		s += fmt.Sprintf("\nIt is smaller than the usual %s: this machine has %s free, and that wants %s.",
			gib(fullGuest), gib(p.hostMiB), gib(fullHost))
	}
	return s
}

func gib(mib int) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(mib)/1024), ".0") + " GiB"
}
