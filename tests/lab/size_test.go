// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"math"
	"testing"
)

func TestGuestSize(t *testing.T) {
	for _, tc := range []struct {
		name               string
		free, wanted, want int // want: 0 for an error
	}{
		{"a large host", 64 << 10, 0, FullGuest},
		{"just enough", FullHost, 0, FullGuest},
		{"half of it", FullHost / 2, 0, FullGuest / 2},
		{"rounded to a quarter of a GiB", 9999, 0, 3840},
		{"the smallest host", 2560, 0, SmallestGuest},
		{"too little", 2559, 0, 0},
		{"nothing", 0, 0, 0},
		{"what is asked for", 64 << 10, 3000, 3000},
		{"the largest that fits", 20<<10 + 512, 10 << 10, 10 << 10},
		{"more than the host has", 20<<10 + 512, 10<<10 + 1, 0},
		{"more than any host has", 64 << 10, math.MaxInt, 0},
		{"too small", 64 << 10, 1000, 0},
		{"below zero", 64 << 10, -1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := GuestSize(tc.free, tc.wanted)
			if got != tc.want || (err == nil) != (tc.want != 0) {
				t.Errorf("got %d, %v, want %d", got, err, tc.want)
			}
		})
	}
}
