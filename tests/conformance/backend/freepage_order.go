// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"cmp"
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Offsets and features of docs/window.md.
const (
	winHot, winCold = 0xd8, 0xe0
	classesFeature  = 1 << 1
)

// withClasses is bootDriver for a frontend that takes an order.
func (s *session) withClasses() *freePageMachine {
	m := s.bootFreePageOf(le.AppendUint64(le.AppendUint64(nil, 2), classesFeature))
	m.need(le.Uint64(m.window[0x10:])&classesFeature != 0, "backend does not offer CLASSES")
	m.post(helloMessage(protocol.StatusOK, 0))
	return m
}

func fpOrder(s *session) {
	m := s.withClasses()
	m.exchange()
	m.checkOrder()
}

// checkOrder checks the lists of the newest answer.
func (m *freePageMachine) checkOrder() {
	counts := [...]uint64{
		le.Uint64(m.window[winCount:]), le.Uint64(m.window[winHot:]), le.Uint64(m.window[winCold:]),
	}
	slots := (uint64(len(m.window)) - winRanges) / 16
	var all []memRange
	at := uint64(winRanges)
	for _, n := range counts {
		if n > slots {
			m.Failf("the lists have %v ranges, and the window has too few slots for them", counts)
		}
		slots -= n
		list := make([]memRange, n)
		for i := range list {
			list[i] = memRange{le.Uint64(m.window[at:]), le.Uint64(m.window[at+8:])}
			at += 16
		}
		if !sound(list, false) {
			m.Failf("of %v ranges, a list is %x", counts, list)
		}
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b memRange) int { return cmp.Compare(a.GPA, b.GPA) })
	if !sound(all, true) {
		m.Failf("of the lists with %v ranges, two have the same page: %x", counts, all)
	}
}

// sound says whether ranges are sorted, disjoint, not empty and of whole pages. They
// may touch only where adjacent says so.
func sound(list []memRange, adjacent bool) bool {
	for i, r := range list {
		if r.Length == 0 || r.GPA%4096 != 0 || r.Length%4096 != 0 || r.GPA+r.Length < r.GPA {
			return false
		}
		if i == 0 {
			continue
		}
		if end := list[i-1].GPA + list[i-1].Length; end > r.GPA || end == r.GPA && !adjacent {
			return false
		}
	}
	return true
}

func fpNoOrder(s *session) {
	m := s.withClasses()
	m.exchange()
	m.ask()
	m.post(lastReport(m.await(protocol.EventReportFree).Generation, block(1), block(1)))
	m.expectStatus(fpBadReport, "a block is reported twice")
	if hot, cold := le.Uint64(m.window[winHot:]), le.Uint64(m.window[winCold:]); hot+cold > 0 {
		s.Failf("a request without success has %d hot and %d cold ranges", hot, cold)
	}
}
