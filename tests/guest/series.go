// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Series names a kernel series that the project knows, or any kernel of Debian as
// "suite/meta package", such as "sid/linux-image-amd64". A series is of the architecture of
// [Target].
type Series string

// The series, by the Debian release that ships them.
const (
	Linux5_10   Series = "5.10"    // Debian 11
	Linux6_1    Series = "6.1"     // Debian 12
	Linux6_12   Series = "6.12"    // Debian 13
	Linux6_12RT Series = "6.12-rt" // Debian 13, with PREEMPT_RT
	// Debian 13 for arm64, with pages of 16 KiB. Debian has no kernel with pages of 64 KiB.
	Linux6_12With16K Series = "6.12-16k"
	Linux7_3         Series = "7.3" // Debian 13's backports
)

// AllSeries returns every series that the agent and introspection support and Debian still
// renews, oldest first. If FBPP_KERNEL names a kernel, that is the only one.
func AllSeries() []Series {
	if s := os.Getenv("FBPP_KERNEL"); s != "" {
		return []Series{Series(s)}
	}
	if a, err := Target(); err == nil && a == AArch64 {
		// Debian 12's kernel for arm64 has no KALLSYMS_ALL, and the agent refuses it.
		return []Series{Linux6_12, Linux6_12With16K, Linux7_3}
	}
	return []Series{Linux6_1, Linux6_12, Linux7_3}
}

// OldestAndNewest is [AllSeries] without those between, for what differs little from kernel to
// kernel.
func OldestAndNewest() []Series {
	all := AllSeries()
	if len(all) == 1 {
		return all
	}
	return []Series{all[0], all[len(all)-1]}
}

// Default returns the series for what is tested with one of them.
func Default() Series {
	if all := AllSeries(); len(all) == 1 {
		return all[0]
	}
	return Linux6_12
}

// origin is where Debian has a kernel: a suite, and a meta package that depends on the newest
// kernel of its flavour.
type origin struct{ suite, metaPackage string }

// RT returns the series for what is tested with PREEMPT_RT.
func RT() Series {
	if s := Default(); strings.Contains(string(s), "-rt-") {
		return s
	}
	return Linux6_12RT
}

// anyKernel matches a series that names a suite and a meta package of kernels.
var anyKernel = regexp.MustCompile(`^([a-z][a-z-]*)/(linux-image-[a-z0-9.+-]+)$`)

// release returns the suite of the Debian release that ships the kernel, or whose backports do:
// these hold few packages.
func (s Series) release(a Arch) (suite string, err error) {
	from, err := s.origin(a)
	return strings.TrimSuffix(from.suite, "-backports"), err
}

// origin returns where Debian has the kernel for an architecture.
func (s Series) origin(a Arch) (origin, error) {
	cloud := "linux-image-cloud-" + a.Debian()
	switch s {
	case Linux5_10:
		return origin{"bullseye", cloud}, nil
	case Linux6_1:
		return origin{"bookworm", cloud}, nil
	case Linux6_12:
		return origin{"trixie", cloud}, nil
	case Linux6_12RT:
		return origin{"trixie", "linux-image-rt-" + a.Debian()}, nil
	case Linux7_3:
		return origin{"trixie-backports", cloud}, nil
	case Linux6_12With16K:
		if a == AArch64 {
			return origin{"trixie", "linux-image-arm64-16k"}, nil
		}
	}
	if m := anyKernel.FindStringSubmatch(string(s)); m != nil {
		return origin{m[1], m[2]}, nil
	}
	return origin{}, fmt.Errorf("kernel series %q is not known for %s", s, a)
}
