// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

const pageMiB = 256 // pages of 4 KiB in one MiB

// plan says how large the demo is.
type plan struct {
	series   guest.Series
	guestMiB int
	fillMiB  int // written and freed before each migration
	hostMiB  int // what the host had free
	asked    bool
}

// makePlan picks sizes for the memory that this machine has free now.
func makePlan(wanted int) (plan, error) {
	host, err := lab.HostMemoryMiB()
	if err != nil {
		return plan{}, fmt.Errorf("plan the demo: %w", err)
	}
	return planFor(host, wanted)
}

// planFor picks sizes for a host with so much free memory. If wanted is 0 it picks the
// usual size of the guest.
func planFor(host, wanted int) (plan, error) {
	size, err := lab.GuestSize(host, wanted)
	if err != nil {
		return plan{}, fmt.Errorf("plan the demo: %w", err)
	}
	return plan{guestMiB: size, fillMiB: size * 7 / 8, hostMiB: host, asked: wanted != 0}, nil
}

// String implements fmt.Stringer.
func (p plan) String() string {
	s := fmt.Sprintf("A guest of %s fills %s and gives them back, then it is migrated.",
		gib(p.guestMiB), gib(p.fillMiB))
	if p.guestMiB < lab.FullGuest && !p.asked {
		s += fmt.Sprintf("\nIt is smaller than the usual %s:"+
			" this machine has %s free, and that wants %s.",
			gib(lab.FullGuest), gib(p.hostMiB), gib(lab.FullHost))
	}
	return s
}

func gib(mib int) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(mib)/1024), ".0") + " GiB"
}
