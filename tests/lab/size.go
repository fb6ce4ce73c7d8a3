// SPDX-License-Identifier: Apache-2.0

package lab

import "fmt"

// Sizes in MiB. Both ends of a migration run on this host, so it holds the whole
// guest twice.
const (
	// FullGuest is the size of the guest in published results.
	FullGuest = 8 << 10
	// FullHost is the free memory from which GuestSize chooses FullGuest.
	FullHost = 20 << 10
	// SmallestGuest is the smallest guest in which the workloads fit.
	SmallestGuest = 1 << 10
	// share is the least memory that is left for everything beside the two guests:
	// fbppd, other programs, and a disk image in the page cache.
	share = 512
)

// GuestSize returns the size of the guest to migrate on a host with so much free
// memory; all sizes are in MiB. If wanted is 0 it chooses FullGuest, or less on a
// smaller host. Any other wanted size is returned as it is. It is an error if the size
// is below SmallestGuest, or does not fit twice.
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
