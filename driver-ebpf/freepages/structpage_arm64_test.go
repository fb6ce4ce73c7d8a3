// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"strings"
	"testing"
)

func TestVmemmapOfACrashDumpsInformation(t *testing.T) {
	const info = "OSRELEASE=6.12\nPAGESIZE=4096\nSIZE(page)=64\n" +
		"NUMBER(VMEMMAP_START)=0xfffffdffc0000000\nNUMBER(PHYS_OFFSET)=0x40000000\n"
	for name, tc := range map[string]struct {
		info  string
		shift int
		want  uint64 // 0 for an error
	}{
		"4 KiB":  {info, 12, 0xfffffdffbf000000},
		"16 KiB": {info, 14, 0xfffffdffbfc00000},
		// KASLR moves what is mapped.
		"below 0": {strings.Replace(info, "0x40000000", "0xffffffff00000000", 1), 12,
			0xfffffdffc4000000},
		"no array":       {strings.Replace(info, "VMEMMAP_START", "X", 1), 12, 0},
		"no offset":      {strings.Replace(info, "PHYS_OFFSET", "X", 1), 12, 0},
		"no number":      {strings.Replace(info, "0x40000000", "none", 1), 12, 0},
		"another size":   {strings.Replace(info, "=64", "=56", 1), 12, 0},
		"an empty text":  {"", 12, 0},
		"a text cut off": {info[:40], 12, 0},
	} {
		got, err := vmemmap([]byte(tc.info), tc.shift)
		if got != tc.want || (err == nil) != (tc.want != 0) {
			t.Errorf("%s: got %#x, %v, want %#x", name, got, err, tc.want)
		}
	}
}
