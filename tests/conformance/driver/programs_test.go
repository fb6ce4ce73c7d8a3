// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// accepts begins a session of the scripted driver.
func (s *script) accepts() {
	if !s.known.Load() && s.fault != "tells an old device of programs" {
		s.outbox = nil
		return
	}
	switch s.fault {
	case "takes no programs", "no accepts":
		return
	case "tells an old device of programs":
		s.nonce++
	case "two sessions with one nonce":
		s.nonce = 1
	default:
		s.nonce++
	}
	a := protocol.Accepts{
		Kinds: protocol.KindWalk.Mask() | protocol.KindCensus.Mask(), MaxSize: 1 << 20,
	}
	if s.fault == "does not count" {
		a.Kinds = protocol.KindWalk.Mask()
	}
	s.tell(protocol.MessageAccepts, protocol.AcceptsSize, a.Encode)
}

func (s *script) tell(of protocol.MessageType, size int, encode func([]byte)) {
	p := make([]byte, protocol.HeaderSize+size)
	h := protocol.Header{Type: of, Generation: s.nonce, PageShift: 12}
	h.Encode(p)
	encode(p[protocol.HeaderSize:])
	s.outbox = append(s.outbox, p)
}

// program handles an event about programs: the driver fetches the beginning of an object,
// and refuses it.
func (s *script) program(p []byte) {
	e, err := protocol.DecodeProgramEvent(p)
	if err != nil {
		s.t.Error(err)
	}
	if heeds := map[fault]protocol.EventType{
		"takes an offer of another session": protocol.EventOffer,
		"takes data of another session":     protocol.EventData,
		"obeys another session":             protocol.EventWithdraw,
		"counts for another session":        protocol.EventCount,
	}; e.Nonce != s.nonce && heeds[s.fault] != e.Type {
		return
	}
	r := protocol.ProgramReport{
		Digest: e.Digest, Kind: protocol.KindWalk, State: protocol.ProgramRefused, Reason: "a test",
	}
	switch e.Type {
	case protocol.EventOffer:
		switch s.fault {
		case "does not answer an offer":
			return
		case "refuses what is not signed":
			s.tell(protocol.MessageProgram, protocol.ProgramReportSize, r.Encode)
			return
		}
		s.wants = &protocol.Get{Digest: e.Digest, Length: e.Offer.Size}
		s.get()
	case protocol.EventWithdraw:
		if s.fault == "does not answer a withdrawal" {
			return
		}
		r.State = protocol.ProgramWithdrawn
		s.tell(protocol.MessageProgram, protocol.ProgramReportSize, r.Encode)
	case protocol.EventCount:
		s.count(e)
	case protocol.EventData:
		s.wants = nil
		if s.fault == "loads what was not offered" {
			r.State = protocol.ProgramActive
		}
		s.tell(protocol.MessageProgram, protocol.ProgramReportSize, r.Encode)
	}
}

// count answers COUNT: the driver has no census in use.
func (s *script) count(e protocol.ProgramEvent) {
	r := protocol.CensusReport{Digest: e.Digest, Number: e.Number, Failed: true, Reason: "a test"}
	times := 1
	switch s.fault {
	case "does not answer a count":
		times = 0
	case "answers a count twice":
		times = 2
	case "numbers a census wrongly":
		r.Number++
	case "names another census":
		r.Digest[0]++
	}
	for range times {
		s.tell(protocol.MessageCensus, protocol.CensusReportSize, r.Encode)
	}
}

// get asks for the object that the script fetches, and again if it does not come.
func (s *script) get() {
	again := 20 * time.Millisecond
	if s.fault == "takes data of another session" {
		again = time.Second // a second answer, which is good, must not come before it is told
	}
	if s.wants != nil && time.Since(s.asked) > again {
		s.asked = time.Now()
		s.tell(protocol.MessageGet, protocol.GetSize, s.wants.Encode)
	}
}

// A driver that refuses an offer before it has the object has no occasion to load another.
func TestRefusalBeforeTheObjectIsNoOccasion(t *testing.T) {
	results, err := examine(t, "refuses what is not signed", acceptedByQEMU)
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range results {
		want := report.Pass
		if id == "FBPP-PROG-8" {
			want = report.Skip
		}
		if r.Outcome != want {
			t.Errorf("%s: %v: %s", id, r.Outcome, r.Detail)
		}
	}
	if why := results["FBPP-PROG-8"].Detail; !strings.Contains(why, driver.OfferedDigest().String()) {
		t.Errorf("nothing says what to pin: %s", why)
	}
}

// A driver that takes walks only has no occasion to count.
func TestDriverThatDoesNotCount(t *testing.T) {
	results, err := examine(t, "does not count", acceptedByQEMU)
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range results {
		if want := id == "FBPP-CEN-2"; want != (r.Outcome == report.Skip) {
			t.Errorf("%s: %v: %s", id, r.Outcome, r.Detail)
		}
	}
}

// A driver that takes no programs has no occasion to break rules about them.
func TestDriverThatTakesNoPrograms(t *testing.T) {
	results, err := examine(t, "takes no programs", acceptedByQEMU)
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range results {
		about := strings.HasPrefix(id, "FBPP-PROG-") || strings.HasPrefix(id, "FBPP-CEN-")
		if about && r.Outcome != report.Skip || !about && r.Outcome != report.Pass {
			t.Errorf("%s: %v: %s", id, r.Outcome, r.Detail)
		}
	}
}
