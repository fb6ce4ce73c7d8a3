// SPDX-License-Identifier: Apache-2.0

package lab

import "fmt"

// Sizes in MiB. Both ends of a migration hold the whole guest, and what else
// runs needs its share.
const (
	// FullGuest is the guest that results are published of.
	FullGuest = 8 << 10
	// FullHost is the free memory of a host at which that guest is chosen.
	FullHost = 20 << 10
	// SmallestGuest is the least that leaves room for what a guest is to do.
	SmallestGuest = 1 << 10
	// share is the least beside the two guests: fbppd, programs, a disk image in
	// the page cache.
	share = 512
)

// GuestSize returns how large a guest a host with so much free memory migrates,
// both in MiB. A wanted size of 0 is the full one, or what fits in comfort. Any
// other is taken as it is, unless it cannot fit.
func GuestSize(free, wanted int) (int, error) {
	largest := max(free-share, 0) / 2
	if largest < SmallestGuest {
		return 0, fmt.Errorf("%d MiB of free memory are too few: a guest of %d MiB, twice, wants %d",
			free, SmallestGuest, 2*SmallestGuest+share)
	}
	switch {
	case wanted == 0 && free >= FullHost:
		return FullGuest, nil
	case wanted == 0:
		return max((free*FullGuest/FullHost)&^255, SmallestGuest), nil
	case wanted < SmallestGuest:
		return 0, fmt.Errorf("a guest of %d MiB is too small: the least is %d", wanted, SmallestGuest)
	case wanted > largest:
		return 0, fmt.Errorf("a guest of %d MiB is too large: both ends hold it, and %d MiB are free, "+
			"enough for %d", wanted, free, largest)
	}
	return wanted, nil
}
