// SPDX-License-Identifier: Apache-2.0

package version

import (
	"regexp"
	"testing"
)

// line matches the name of a program, its version, and the Go version and platform that
// it was built with.
var line = regexp.MustCompile(`^[a-z-]+ (v\d\S*|\(devel\)), go\d\S* linux/\S+\n?$`)

func TestLine(t *testing.T) {
	if got := Line("fbppd"); !line.MatchString(got) {
		t.Errorf("got %q", got)
	}
}
