// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"testing"

	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

func TestStateAfterARead(t *testing.T) {
	const done, more, full = walk.Done, walk.More, walk.Full
	const tooOften = maxMisses + 1
	// Each case is one read: the zones that were printed, those that are finished, those
	// that are cut, and whether the buffer is full.
	for name, c := range map[string]struct {
		read   read
		misses int
		want   walk.State
		err    error
	}{
		"all zones are done":                    {read{3, 3, 0, false}, 0, done, nil},
		"all done and the buffer is just full":  {read{3, 3, 0, true}, 0, done, nil},
		"a zone went away":                      {read{3, 4, 0, false}, 0, done, nil},
		"the budget cut a list":                 {read{3, 2, 1, false}, 0, more, nil},
		"the buffer cut a list":                 {read{3, 2, 1, true}, 0, full, nil},
		"a zone was missed":                     {read{3, 2, 0, false}, 1, more, nil},
		"a zone was missed the third time":      {read{3, 2, 0, false}, maxMisses, more, nil},
		"a zone was missed too often":           {read{3, 2, 0, false}, tooOften, more, errMissed},
		"no zone was walked":                    {read{3, 0, 0, false}, 1, more, nil},
		"no zone was ever walked":               {read{3, 0, 0, false}, tooOften, more, errMissed},
		"one was missed and the buffer is full": {read{3, 2, 0, true}, tooOften, full, nil},
		"one was missed, and another one cut":   {read{3, 1, 1, false}, tooOften, more, nil},
		"after misses, all is done":             {read{3, 3, 0, false}, maxMisses, done, nil},
		"after misses, the last fills a buffer": {read{3, 2, 1, true}, maxMisses, full, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := c.read.state(c.misses); got != c.want || !errors.Is(err, c.err) {
				t.Fatalf("state %d, error %v; want %d, %v", got, err, c.want, c.err)
			}
		})
	}
}

// A zone was printed that the program has not walked. Its blocks count as left out, also where
// the kernel has printed the other zone twice.
func TestBlocksOfAMissedZoneCountAsLeftOut(t *testing.T) {
	s := &Snapshot{
		control:  make(control, controlSize),
		capacity: 100,
		file:     &zoneFile{text: []byte("Node 0, zone DMA\n  pages free 1\nNode 0, zone Normal\n")},
		counts:   make(counts, 2*maxOrders*8),
	}
	for i, blocks := range []byte{4, 1, 6, 2} { // of the zones' first two orders
		s.counts[(i/2*maxOrders+i%2)*8] = blocks
	}
	s.count = 5
	for finished, want := range map[uint32]uint64{2: 0, 1: 8, 0: 8} {
		s.arm(fakeTask, 0, walk.Budget{})
		s.finished = 0
		s.control.setU32(controlZones, 2)
		s.control.setU32(controlLocked, 2)
		s.control.setU32(controlFinished, finished)
		var err error
		if s.last, _, err = s.result(); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats().LeftOut; got != want {
			t.Errorf("%d of 2 zones are finished: %d blocks are left out, want %d",
				finished, got, want)
		}
	}
}
