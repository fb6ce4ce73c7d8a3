// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// sizes are those of the guest and of its loads, in MiB. They are shares of the guest's
// memory. The comments give the sizes for the full guest.
type sizes struct {
	Guest    int            `json:"guest_mib"`
	Touched  int            `json:"touched_mib"`       // 7 GiB, by all loads but fresh
	Mid      int            `json:"mid_load_mib"`      // 4 GiB that stay in use
	High     int            `json:"high_load_mib"`     // 6 GiB
	Cache    int            `json:"page_cache_mib"`    // 4 GiB
	Database int            `json:"database_mib"`      // 2 GiB of values
	Balloons map[method]int `json:"balloon_keeps_mib"` // 1 and 4 GiB

	// Note says why it is not the full size; "" if it is.
	Note string `json:"note,omitempty"`
}

// spare is the memory that a guest needs beside its load, in MiB.
const spare = 384

// planSizes picks sizes for a host with so much free memory. A wanted size of
// 0 is the full one, or what fits.
func planSizes(host, wanted int) (sizes, error) {
	g, err := lab.GuestSize(host, wanted)
	if err != nil {
		return sizes{}, fmt.Errorf("plan the guest: %w", err)
	}
	note := ""
	if g < lab.FullGuest {
		note = fmt.Sprintf("The guest has %d MiB instead of %d:"+
			" the host has %d MiB free, and two full ones want %d.",
			g, lab.FullGuest, host, lab.FullHost)
		if wanted != 0 {
			note = fmt.Sprintf("The guest has %d MiB instead of %d, as it was asked for.", g, lab.FullGuest)
		}
	}
	return sizes{
		Guest: g, Touched: min(g*7/8, g-spare), Mid: g / 2, High: g * 3 / 4, Cache: g / 2,
		Database: g / 4,
		Balloons: map[method]int{balloon1: g / 8, balloon4: g / 2},
		Note:     note,
	}, nil
}

// keeps is how much of the guest's memory a load holds on to.
func (s sizes) keeps(l load) int {
	switch l {
	case midLoad:
		return s.Mid
	case highLoad:
		return s.High
	case database:
		return s.Database * 3 / 2 // with what the database needs for each value
	case kernelBuild:
		return buildKeeps
	case fragmented:
		return s.Touched / 5 // a page of each run of 1 to 8, and its neighbours' tables
	}
	return 0
}

// fits tells whether a method can be used with a load: a balloon must not take memory that
// the load keeps. It may take that of the page cache.
func (s sizes) fits(l load, m method) bool {
	keep, ok := s.Balloons[m]
	return !ok || s.keeps(l)+spare <= keep
}
