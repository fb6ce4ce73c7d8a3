// SPDX-License-Identifier: Apache-2.0

package cmdline

import "testing"

func TestAsksFor(t *testing.T) {
	for line, want := range map[string]bool{
		"":                              false,
		"page_poison":                   false,
		"page_poison=1":                 true,
		"page_poison=on":                true,
		"page_poison=ON quiet":          true,
		"page_poison=Y":                 true,
		`page_poison="yes"`:             true,
		"page-poison=1":                 true,
		"page_poison=0":                 false,
		"page_poison=off":               false,
		"page_poison=1 page_poison=0":   false,
		"xpage_poison=1":                false,
		"quiet -- page_poison=1":        false,
		"root=/dev/vda page_poison=1 1": true,
	} {
		if got := AsksFor(line, "page_poison"); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}
