// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"encoding/binary"
	"testing"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// mustAgreeOnLists compares the free pages that the host finds on lists of CPUs, which the
// kernel's files do not name, with the pages that have no reference and no flag there. Pages
// that changed meanwhile are left out, as compare does: a process may have ended after the
// guest's second read.
func mustAgreeOnLists(
	t *testing.T, k *introspect.Kernel, v *view, seen map[uint64]pages.Page,
) {
	t.Helper()
	word := func(file string, pfn uint64) uint64 {
		return binary.LittleEndian.Uint64(v.files[file][8*pfn:])
	}
	listed, unquiet := 0, 0
	c, err := k.Scan(t.Context(), introspect.ScanOptions{
		FreeOnly: true,
		CPULists: func(list []introspect.Block) error {
			for _, b := range list {
				for pfn := b.PFN; pfn < b.PFN+1<<b.Order; pfn++ {
					listed++
					flags, references := word("kpageflags", pfn), word("kpagecount", pfn)
					if flags != word("kpageflags2", pfn) || flags&kpfBuddy != 0 ||
						v.before[pfn] != seen[pfn] {
						unquiet++
					} else if flags&(kpfLRU|kpfSlab|kpfAnon|kpfPageTable|kpfReserved) != 0 ||
						references != 0 {
						t.Errorf("page %#x is on a list of free pages of a CPU: flags %#x, %d references",
							pfn, flags, references)
					}
				}
			}
			return nil
		},
	})
	if err != nil || c.CPULists != nil {
		t.Fatal(err, c.CPULists)
	}
	t.Logf("%d pages are on lists of CPUs, %d were not quiet", listed, unquiet)
	if listed == 0 || unquiet > listed/2 {
		t.Errorf("%d pages are on lists of CPUs, %d were not quiet", listed, unquiet)
	}
}
