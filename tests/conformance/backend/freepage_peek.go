// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Offsets and features of docs/window.md.
const (
	winPeekNumber, winPeekGeneration = 0x140, 0x148
	winPeekCount, winPeekAnswered    = 0x150, 0x158
	peekFeature                      = 1 << 2
)

// fpPeeks are the rules for a backend that peeks. One that has nothing to peek at in the
// guest of this suite, which has no kernel, gives no occasion.
func fpPeeks() []check {
	const source = "window.md, Peeking"
	return []check{
		{id: "FBPP-WIN-12", source: source,
			text: "The ranges of a peek are as those of an answer, and the bits have room behind them.",
			run:  fpPeekRanges},
		{id: "FBPP-WIN-13", source: source,
			text: "The backend peeks only with PEEK, and for the open request.", run: fpPeekOfRequest},
		{id: "FBPP-WIN-14", source: source,
			text: "Until a peek is answered there is neither another one nor an answer with ranges.",
			run:  fpPeekUnanswered},
	}
}

// withPeek boots a driver for a frontend that tells which pages were written. The driver
// refuses, so that a backend that looks for itself does so.
func (s *session) withPeek() *freePageMachine {
	m := s.bootFreePageOf(le.AppendUint64(le.AppendUint64(nil, 2), peekFeature))
	m.need(le.Uint64(m.window[0x10:])&peekFeature != 0, "backend does not offer PEEK")
	m.post(helloMessage(protocol.StatusUnsupported, 0))
	return m
}

// peeked waits for a peek after number before, or for the end of the request. It returns
// the newest number.
func (m *freePageMachine) peeked(before uint64) (number uint64, ended bool) {
	for end := time.Now().Add(deadline + m.cfg.Patience); time.Now().Before(end); {
		if n := le.Uint64(m.window[winPeekNumber:]); n != before {
			return n, false
		}
		if le.Uint64(m.window[winDone:]) == m.asked {
			return before, true
		}
		time.Sleep(time.Millisecond)
	}
	m.Failf("request %d has neither a peek nor an answer", m.asked)
	return 0, true
}

// answerPeek says that no page was written since the log was armed.
func (m *freePageMachine) answerPeek(number uint64) {
	count := le.Uint64(m.window[winPeekCount:])
	bits := m.window[winRanges+16*count:]
	clear(bits[:min(uint64(len(bits)), m.peekPages()/8+1)])
	le.PutUint64(m.window[winPeekAnswered:], number)
	m.signal()
}

// peekPages returns how many pages a peek asks about.
func (m *freePageMachine) peekPages() (pages uint64) {
	for i := range le.Uint64(m.window[winPeekCount:]) {
		pages += le.Uint64(m.window[winRanges+16*i+8:]) >> 12
	}
	return pages
}

// eachPeek makes a request, and calls look with each peek before it is answered. It skips
// the rule if the backend does not peek.
func (m *freePageMachine) eachPeek(look func(number uint64)) {
	m.ask()
	peeks := 0
	for number := uint64(0); ; peeks++ {
		var ended bool
		if number, ended = m.peeked(number); ended {
			break
		}
		look(number)
		m.answerPeek(number)
	}
	m.need(peeks > 0, "backend does not peek in a guest without a kernel")
}

func fpPeekRanges(s *session) {
	m := s.withPeek()
	m.eachPeek(func(number uint64) {
		count := le.Uint64(m.window[winPeekCount:])
		room := uint64(len(m.window)) - winRanges
		if count > room/16 {
			m.Failf("peek %d has %d ranges, and the window has room for %d", number, count, room/16)
		}
		list := make([]memRange, count)
		for i := range list {
			p := m.window[winRanges+16*i:]
			list[i] = memRange{le.Uint64(p), le.Uint64(p[8:])}
		}
		if !sound(list, false) {
			m.Failf("the ranges of peek %d are %x", number, list)
		}
		if bits := (m.peekPages() + 7) / 8; bits > room-16*count {
			m.Failf("peek %d of %d ranges leaves no room for %d bytes of bits", number, count, bits)
		}
	})
}

func fpPeekOfRequest(s *session) {
	without := s.withClasses()
	without.post(helloMessage(protocol.StatusUnsupported, 0))
	without.ask()
	without.answer()
	if n := le.Uint64(without.window[winPeekNumber:]); n != 0 {
		s.Failf("the backend peeked %d times at a frontend without PEEK", n)
	}
	without.f.Close()
	m := s.withPeek()
	m.eachPeek(func(number uint64) {
		if g := le.Uint64(m.window[winPeekGeneration:]); g != m.asked {
			m.Failf("peek %d is of request %d, and request %d is open", number, g, m.asked)
		}
	})
}

func fpPeekUnanswered(s *session) {
	m := s.withPeek()
	m.eachPeek(func(number uint64) {
		for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if n := le.Uint64(m.window[winPeekNumber:]); n != number {
				m.Failf("peek %d comes before peek %d was answered", n, number)
			}
			ended := le.Uint64(m.window[winDone:]) == m.asked
			if ranges := le.Uint64(m.window[winCount:]); ended && ranges > 0 {
				m.Failf("an answer with %d ranges comes before peek %d was answered", ranges, number)
			}
		}
	})
}
