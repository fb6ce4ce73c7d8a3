// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/introspect/qemuram"
)

func TestMemoryThatIsPluggedIn(t *testing.T) {
	const size = 256 << 20
	for _, series := range []guest.Series{guest.Linux6_1, guest.Linux7_3} {
		t.Run(string(series), func(t *testing.T) {
			s := mustBoot(t, machine{
				series: series, nodes: []int{512}, kinds: allKinds,
				append:  []string{"memhp_default_state=online"},
				options: []string{"-m", "slots=2,maxmem=4G"},
			})
			k := mustLocate(t, s.mustMemory(t), 0)
			before := mustPresent(t, k)

			s.mustQMP(t, "object-add", map[string]any{
				"qom-type": "memory-backend-memfd", "id": "more", "size": size, "share": true,
			}, nil)
			s.mustQMP(t, "device_add", map[string]any{
				"driver": "pc-dimm", "id": "dimm", "memdev": "more",
			}, nil)
			var devices []struct{ Data struct{ Addr uint64 } }
			s.mustQMP(t, "query-memory-devices", nil, &devices)
			if len(devices) != 1 {
				t.Fatalf("%d memory devices", len(devices))
			}
			all, err := qemuram.Open(s.vm.PID())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { all.Close() })
			s.ram = all
			mem := s.mustMemory(t, physmem.Region{
				GPA: devices[0].Data.Addr, Size: size, Source: physmem.FD(all[len(all)-1].Fd()),
			})
			k = mustLocate(t, mem, k.NoteAddress())
			for deadline := time.Now().Add(patience); mustPresent(t, k) < before+size>>12; {
				if time.Now().After(deadline) {
					t.Fatalf("the guest has %d pages, and had %d", mustPresent(t, k), before)
				}
				time.Sleep(100 * time.Millisecond)
			}
			s.mustAgree(t, mem, s.mustPauseWithView(t, k))
		})
	}
}

// mustPresent returns how many pages the guest's kernel has.
func mustPresent(t *testing.T, k *introspect.Kernel) (n uint64) {
	t.Helper()
	zones, err := k.Zones()
	if err != nil {
		t.Fatal(err)
	}
	for _, zone := range zones {
		n += zone.Present
	}
	return n
}
