// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"maps"
	"slices"
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
		Kinds: protocol.KindWalk.Mask() | protocol.KindCensus.Mask() | protocol.KindSampler.Mask(),
	}
	a.MaxSize = 1 << 20
	switch s.fault {
	case "does not count":
		a.Kinds &^= protocol.KindCensus.Mask()
	case "does not sample":
		a.Kinds &^= protocol.KindSampler.Mask()
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
		"samples for another session":       protocol.EventSample,
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
	case protocol.EventSample:
		s.sample(e)
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
	case "counts in no session":
		defer func(nonce uint64) { s.nonce = nonce }(s.nonce)
		s.nonce = 1 << 60
	case "counts what is more than all":
		r.Failed, r.Counts[0][1] = false, 1
	}
	for range times {
		s.tell(protocol.MessageCensus, protocol.CensusReportSize, r.Encode)
	}
}

// sample answers SAMPLE: the driver has no sampler in use. It may send parts before it says so.
func (s *script) sample(e protocol.ProgramEvent) {
	part := protocol.SampleReport{Digest: e.Digest, Number: e.Number, First: protocol.SampledPages}
	end := protocol.SampleReport{
		Digest: e.Digest, Number: e.Number, State: protocol.SampleFailed, Reason: "a test",
	}
	part.Pages[5] = 0x81
	free := part
	free.State = protocol.SampleFree
	answer := []protocol.SampleReport{part, free, end}
	switch s.fault {
	case "does not answer a sample":
		answer = nil
	case "does not end a sample":
		answer = answer[:2]
	case "ends a sample twice":
		answer = append(answer, end)
	case "goes on after the end of a sample":
		answer = append(answer, part)
	case "numbers a part wrongly":
		answer[1].Number++
	case "numbers the end of a sample wrongly":
		answer[2].Number++
	case "names another sampler in a part":
		answer[1].Digest[0]++
	case "names another sampler at the end":
		answer[2].Digest[0]++
	case "samples in no session":
		defer func(nonce uint64) { s.nonce = nonce }(s.nonce)
		s.nonce = 1 << 60
	case "begins a part within a window":
		answer[1].First++
	case "ends a sample with pages":
		answer[2].Pages[0] = 1
	case "ends a sample with an unknown state":
		answer[2].State = 4
	}
	for _, r := range answer {
		s.tell(protocol.MessageSampled, protocol.SampleReportSize, r.Encode)
	}
	if s.fault == "counts for a sample" {
		r := protocol.CensusReport{Digest: e.Digest, Number: e.Number}
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

// A driver that does not take a kind of program has no occasion to answer with it.
func TestDriverThatDoesNotAnswer(t *testing.T) {
	rules := map[fault]string{"does not count": "FBPP-CEN-2", "does not sample": "FBPP-SMP-2"}
	outcomes := examineAll(t, slices.Collect(maps.Keys(rules)), examineAsQEMU(t))
	for f, rule := range rules {
		end := <-outcomes[f]
		if end.err != nil {
			t.Fatal(end.err)
		}
		if skipped := with(end.results, report.Skip); !slices.Equal(skipped, []string{rule}) {
			t.Errorf("a driver that %s: %v have no occasion, want %s", f, skipped, rule)
		}
		if broken := with(end.results, report.Fail); broken != nil {
			t.Errorf("a driver that %s: %v are broken", f, broken)
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
		about := slices.ContainsFunc([]string{"FBPP-PROG-", "FBPP-CEN-", "FBPP-SMP-"},
			func(family string) bool { return strings.HasPrefix(id, family) })
		if about && r.Outcome != report.Skip || !about && r.Outcome != report.Pass {
			t.Errorf("%s: %v: %s", id, r.Outcome, r.Detail)
		}
	}
}
