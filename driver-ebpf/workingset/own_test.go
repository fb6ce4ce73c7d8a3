// SPDX-License-Identifier: Apache-2.0

package workingset

import (
	"slices"
	"testing"
)

// Only what is mapped of the program and not written to is used: a page that was written to is a
// copy.
func TestMappingsOfTheProgram(t *testing.T) {
	const maps = `00400000-0052e000 r-xp 00000000 08:01 1048   /usr/bin/fbpp agent
0052e000-005f1000 r--p 0012e000 08:01 1048   /usr/bin/fbpp agent
005f1000-005ff000 rw-p 001f1000 08:01 1048   /usr/bin/fbpp agent
005ff000-0063a000 rw-p 00000000 00:00 0 
7f0000000000-7f0000001000 r--p 00000000 08:01 1049   /usr/bin/agent
7f0000002000-7f0000003000 r--s 00000000 08:01 1050   /usr/bin/fbpp agent (deleted)
7ffd18d5c000-7ffd18d5e000 r-xp 00000000 00:00 0      [vdso]
nonsense
`
	want := []part{{0x400000, 0x52e000, 0}, {0x52e000, 0x5f1000, 0x12e000}}
	if got := parseMaps(maps, "/usr/bin/fbpp agent"); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// This program is found, and can be touched.
func TestOwnProgramIsTouched(t *testing.T) {
	parts, err := ownParts()
	if err != nil || len(parts) == 0 {
		t.Fatalf("this program has the parts %x, %v", parts, err)
	}
	release, err := touchOwn()
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}
