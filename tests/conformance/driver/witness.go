// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
)

// The guest's memory is the witness of whether it runs: an interrupt that is
// handled leaves traces in it. Large guests are not looked at, as looking makes
// the host allocate what the guest never used.
const (
	witnessMost  = 1 << 30
	witnessPiece = 1 << 20
	witnessPause = 10 * time.Millisecond
)

// guestActive says whether any byte of the guest's memory changes while the
// driver is interrupted, for at most so long. known is false where that cannot
// be told.
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
