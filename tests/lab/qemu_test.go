// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strings"
	"testing"
)

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
