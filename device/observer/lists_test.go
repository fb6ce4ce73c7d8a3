// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"slices"
	"testing"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
)

// A free page of a CPU counts while it hangs together with an end of its list. A page between
// two that were written may have left the list with them.
func TestPagesOfACPUCountFromTheEndsOfTheirList(t *testing.T) {
	const perFrame = 64 // struct pages
	list := []uint64{5 * perFrame, 0, 3 * perFrame, 2 * perFrame, 3*perFrame + 1, 4 * perFrame}
	for name, tc := range map[string]struct {
		written []uint64 // of the pages whose frame of struct pages was written
		want    []uint64
	}{
		"nothing was written":    {nil, list},
		"the first":              {list[:1], list[1:]},
		"the last":               {list[5:], list[:5]},
		"one in the middle":      {list[3:4], slices.Concat(list[:3], list[4:])},
		"two with one between":   {list[2:3], slices.Concat(list[:2], list[5:])},
		"both ends":              {[]uint64{list[0], list[5]}, nil},
		"all, of another memory": {[]uint64{6 * perFrame}, list},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetting(t, func(g *syn.Guest) {
				g.PutCPUList(1, 0, list...)
				g.PutCPUCount(1, uint32(len(list)))
			})
			s.live()
			s.written = func(frame uint64) bool {
				return slices.ContainsFunc(tc.written, func(n uint64) bool {
					return frame == (syn.MemMap+n*syn.PageSize)>>12
				})
			}
			want := slices.Sorted(slices.Values(tc.want))
			if got := s.found(); !slices.Equal(got, want) {
				t.Fatalf("free are %v, want %v", got, want)
			}
		})
	}
}
