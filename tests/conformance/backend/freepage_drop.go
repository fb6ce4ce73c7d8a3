// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"encoding/binary"
	"math"

	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// fpDrop are the rules about dropping cache.
func fpDrop() []check {
	const source = "spec.md, section 7.5"
	return []check{
		{id: "FBPP-DROP-1", source: source,
			text: "The device sets DROP_CACHE only if the newest HELLO has the feature.",
			run:  fpDropUnable},
		{id: "FBPP-DROP-2", source: source,
			text: "With DROP_CACHE both bounds are not 0, and without it, and in any other event, both are.",
			run:  fpDropBounds},
		{id: "FBPP-DROP-3", source: source,
			text: "A report that counts dropped cache which was not asked for is malformed.",
			run:  fpDropUnasked},
		{id: "FBPP-DROP-4", source: source,
			text: "A report that counts more dropped cache than was asked for is malformed.",
			run:  fpDropMore},
	}
}

// wantDrops has fbppd ask for it, if its control socket is known. Without that the device
// does as it was started.
func (s *session) wantDrops() {
	if s.cfg.ControlPath == "" {
		return
	}
	c := control.NewClient(s.cfg.ControlPath)
	before, err := c.Status(s.Context())
	if err == nil {
		_, err = c.SetCache(s.Context(), "drop")
	}
	if err != nil {
		s.Errorf("switch the policy for the cache: %v", err)
	}
	s.Cleanup(func() { _, _ = c.SetCache(s.Context(), string(before.Cache)) })
}

// nextRequest makes a request, and returns the event.
func (m *freePageMachine) nextRequest() protocol.Event {
	m.ask()
	return m.await(protocol.EventReportFree)
}

func fpDropUnable(s *session) {
	s.wantDrops()
	m := s.bootDriver()
	for _, features := range []protocol.Features{0, protocol.FeatureDropCache, 0, 1 << 31} {
		m.post(helloMessage(protocol.StatusOK, features))
		e := m.nextRequest()
		if e.DropsCache() && features&protocol.FeatureDropCache == 0 {
			s.Failf("a driver with the features %v was sent %v", features, e)
		}
		m.post(lastReport(e.Generation, block(1)))
		m.expectRanges(blockRange(1))
	}
}

func fpDropBounds(s *session) {
	s.wantDrops()
	m := s.bootFreePage()
	m.post(helloMessage(protocol.StatusOK, protocol.FeatureDropCache))
	for range 2 {
		m.post(lastReport(m.nextRequest().Generation))
		m.answer()
	}
	m.nextRequest()
	m.cancel()
	m.await(protocol.EventCancel)
	m.noEvent(protocol.EventReportFree) // others may come late, on a busy host
	for _, e := range m.seen {
		bounds := e.DropMiB != 0 && e.DropMS != 0
		if none := e.DropMiB == 0 && e.DropMS == 0; e.DropsCache() && !bounds ||
			!e.DropsCache() && !none {
			s.Failf("the event %v has the bounds %d MiB and %d ms", e, e.DropMiB, e.DropMS)
		}
	}
}

func fpDropMore(s *session) {
	s.wantDrops()
	m := s.bootFreePage()
	m.post(helloMessage(protocol.StatusOK, protocol.FeatureDropCache))
	for range 2 {
		e := m.nextRequest()
		p := lastReport(e.Generation, block(0))
		pages := min(uint64(e.DropMiB)<<20/(4<<10)+1, math.MaxUint32)
		binary.LittleEndian.PutUint32(p[len(p)-8:], uint32(pages))
		m.post(p)
		m.expectStatus(fpBadReport, "more cache was dropped than was asked for")
	}
	m.exchange()
}

func fpDropUnasked(s *session) {
	m := s.bootDriver() // it does not say that it can
	for _, at := range []int{8, 4, 1} {
		p := lastReport(m.nextRequest().Generation, block(0))
		p[len(p)-at] = 1 // the lowest bytes of dropped and drop_us, and the highest
		m.post(p)
		m.expectStatus(fpBadReport, "cache was dropped that nobody asked for")
	}
	m.exchange()
}
