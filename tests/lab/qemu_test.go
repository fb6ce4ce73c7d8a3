// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strings"
	"testing"
)

func TestVersionOfTheQEMU(t *testing.T) {
	for version, want := range map[string]bool{
		"QEMU emulator version 10.2.2 (fbpp-0123456789ab-tests)": true,
		"QEMU emulator version 10.10.0 (fbpp)":                   true,
		"QEMU emulator version 11.0.0 (fbpp)":                    true,
		"QEMU emulator version 10.0.11 (fbpp)":                   false,
		"QEMU emulator version 9.2.0 (fbpp)":                     false,
		"fbpp":                                                   false,
	} {
		if l := (&Lab{Version: version}); l.IsAtLeast(10, 2) != want {
			t.Errorf("%q is at least 10.2: %v, want %v", version, !want, want)
		}
	}
}

func TestMissingQEMUSaysWhichToBuild(t *testing.T) {
	t.Setenv(seriesVariable, "11.0")
	t.Setenv(targetVariable, "")
	if got := missing().Error(); !strings.HasSuffix(got, "run 'make qemu-build SERIES=11.0'") {
		t.Fatal(got)
	}
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(seriesVariable, "no-such-series")
	if _, _, err := findQEMU(t.Context(), root); err == nil {
		t.Fatal("a QEMU was found for a series that is not there")
	}
}
