// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// A name that an architecture does not know would leave fbppd without the filter there.
func TestEachArchitectureKnowsTheCalls(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		info, err := arch.GetInfo(goarch)
		if err != nil {
			t.Fatal(err)
		}
		names := slices.Concat(allowed[:], onSome[goarch], []string{"clone3", "openat"})
		for _, c := range restricted() {
			names = append(names, c.Name)
		}
		for _, name := range names {
			if _, known := info.SyscallNames[name]; !known {
				t.Errorf("%s knows no %s", goarch, name)
			}
		}
	}
}
