// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"testing"

	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

func TestStateAfterARead(t *testing.T) {
	for name, c := range map[string]struct {
		read   read
		misses int
		want   walk.State
		err    error
	}{
		"all zones are done":                         {read{printed: 3, seen: 3}, 0, walk.Done, nil},
		"all are done and the buffer is just full":   {read{printed: 3, seen: 3, full: true}, 0, walk.Done, nil},
		"a zone was printed twice":                   {read{printed: 3, seen: 4}, 0, walk.Done, nil},
		"the budget cut a list":                      {read{printed: 3, seen: 3, unfinished: 1}, 0, walk.More, nil},
		"the buffer cut a list":                      {read{printed: 3, seen: 3, unfinished: 1, full: true}, 0, walk.Full, nil},
		"a zone was missed":                          {read{printed: 3, seen: 2}, 1, walk.More, nil},
		"a zone was missed the third time":           {read{printed: 3, seen: 2}, maxMisses, walk.More, nil},
		"a zone was missed too often":                {read{printed: 3, seen: 2}, maxMisses + 1, walk.More, errMissed},
		"no zone was seen":                           {read{printed: 3}, 1, walk.More, nil},
		"no zone was ever seen":                      {read{printed: 3}, maxMisses + 1, walk.More, errMissed},
		"a zone was missed and the buffer is full":   {read{printed: 3, seen: 2, full: true}, maxMisses + 1, walk.Full, nil},
		"one zone was missed, and another one cut":   {read{printed: 3, seen: 2, unfinished: 1}, maxMisses + 1, walk.More, nil},
		"after misses, all is done":                  {read{printed: 3, seen: 3}, maxMisses, walk.Done, nil},
		"after misses, the last zone fills a buffer": {read{printed: 3, seen: 3, unfinished: 1, full: true}, maxMisses, walk.Full, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := c.read.state(c.misses); got != c.want || !errors.Is(err, c.err) {
				t.Fatalf("state %d, error %v; want %d, %v", got, err, c.want, c.err)
			}
		})
	}
}

// A report that ends while a zone is missed is a truncated one.
func TestMissedZoneIsLeftOut(t *testing.T) {
	s := &Snapshot{
		control:  make(control, controlSize),
		capacity: 100,
		text:     []byte("Node 0, zone DMA 4 1\nNode 0, zone Normal 6 2\n"),
	}
	s.control.setU32(controlCount, 5)
	for seen, want := range map[uint32]uint64{2: 0, 1: 8, 0: 8} {
		s.control.setU32(controlZones, seen)
		if got := s.Stats().LeftOut; got != want {
			t.Errorf("%d of 2 zones were seen: %d blocks are left out, want %d", seen, got, want)
		}
	}
}
