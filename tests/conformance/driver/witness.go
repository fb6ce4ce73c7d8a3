// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
)

// A guest that runs and handles interrupts writes to its memory. So a change of the
// memory shows that the guest runs. Guests with more memory than witnessMost are not
// examined: to read all of it makes the host allocate pages that the guest never used.
const (
	witnessMost  = 1 << 30 // bytes
	witnessPiece = 1 << 20 // bytes of one checksum
	witnessPause = 10 * time.Millisecond
)

// guestActive interrupts the driver until a byte of guest memory changes, or limit is
// over, and says whether one changed. known is false if memory could not be examined.
func (s *session) guestActive(limit time.Duration) (active, known bool) {
	var m *vhostuser.Memory
	var pieces []vhostuser.Segment
	s.locked(func() {
		if m = s.memory; m != nil {
			m.Retain()
		}
	})
	if m == nil {
		return false, false
	}
	defer m.Release()
	var total uint64
	for _, r := range m.Regions() {
		if total += r.Size; total > witnessMost {
			return false, false
		}
		for at := r.Addr; at < r.Addr+r.Size; at += witnessPiece {
			var err error
			if pieces, err = m.Segments(pieces, at, min(witnessPiece, r.Addr+r.Size-at)); err != nil {
				return false, false
			}
		}
	}
	before, err := sums(pieces, nil)
	for end := time.Now().Add(limit); err == nil && time.Now().Before(end) && s.ctx.Err() == nil; {
		s.locked(func() {
			s.interrupt(s.eventq)
			s.interrupt(s.reportq)
		})
		time.Sleep(witnessPause)
		var now []uint32
		if now, err = sums(pieces, before); err == nil && !slices.Equal(before, now) {
			return true, true
		}
	}
	return false, err == nil
}

// sums returns a checksum of each segment, up to the first that differs from
// before.
func sums(segments []vhostuser.Segment, before []uint32) ([]uint32, error) {
	list := make([]uint32, 0, len(segments))
	for i, s := range segments {
		sum, err := sumOf([]vhostuser.Segment{s})
		if err != nil {
			return nil, err
		}
		if list = append(list, sum); before != nil && before[i] != sum {
			break
		}
	}
	return list, nil
}
