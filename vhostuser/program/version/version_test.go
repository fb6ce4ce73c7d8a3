// SPDX-License-Identifier: Apache-2.0

package version

import (
	"regexp"
	"testing"
)

// A program says its name, a version, and what built it.
var line = regexp.MustCompile(`^[a-z-]+ (v\d\S*|\(devel\)), go\d\S* linux/\S+\n?$`)

func TestLine(t *testing.T) {
	if got := Line("fbppd"); !line.MatchString(got) {
		t.Errorf("got %q", got)
	}
}
