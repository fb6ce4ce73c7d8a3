// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testSample() SampleReport {
	s := SampleReport{
		Digest: Digest{7}, Number: 1<<63 + 2, TookUS: 3, RunMaxUS: 4, Runs: 5,
		First: 9 * SampledPages,
	}
	s.Pages[0], s.Pages[len(s.Pages)-1] = 1, 0x80
	return s
}

func TestSamplesRoundTrip(t *testing.T) {
	for _, s := range []SampleReport{
		testSample(),
		{Digest: Digest{7}, Number: 1, State: SampleFree, First: 4096, Pages: [512]byte{3: 9}},
		{Digest: Digest{7}, Number: 1, State: SampleDone, TookUS: 9},
		{Digest: Digest{7}, Number: 1, State: SampleFailed, Reason: "no good"},
	} {
		var p [SampleReportSize]byte
		s.Encode(p[:])
		got, err := DecodeSampleReport(p[:])
		if diff := cmp.Diff(s, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	e := ProgramEvent{
		Type: EventSample, Nonce: 3, Digest: Digest{1}, Number: 1<<63 + 1, Interval: 5 * time.Second,
	}
	p := make([]byte, e.Size())
	e.Encode(p)
	got, err := DecodeProgramEvent(p)
	if diff := cmp.Diff(e, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestSamplesAreRefused(t *testing.T) {
	le := binary.LittleEndian
	for name, breakIt := range map[string]func(p []byte) []byte{
		"cut":                 func(p []byte) []byte { return p[:len(p)-1] },
		"an unknown state":    func(p []byte) []byte { p[40] = 4; return p },
		"pages at the end":    func(p []byte) []byte { p[40] = 1; return p },
		"pages of a failure":  func(p []byte) []byte { p[40] = 2; return p },
		"an odd first page":   func(p []byte) []byte { p[56] = 1; return p },
		"a page past all RAM": func(p []byte) []byte { le.PutUint64(p[56:], 1<<40); return p },
	} {
		t.Run(name, func(t *testing.T) {
			var p [SampleReportSize]byte
			s := testSample()
			s.Encode(p[:])
			if _, err := DecodeSampleReport(breakIt(p[:])); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
	for name, breakIt := range map[string]func(p []byte) []byte{
		"cut":               func(p []byte) []byte { return p[:len(p)-1] },
		"too long":          func(p []byte) []byte { le.PutUint32(p[72:], 60_001); return p },
		"with what follows": func(p []byte) []byte { p[76] = 1; return p },
	} {
		t.Run("an interval, "+name, func(t *testing.T) {
			e := ProgramEvent{Type: EventSample, Interval: MaxSampleInterval}
			p := make([]byte, e.Size())
			e.Encode(p)
			if _, err := DecodeProgramEvent(p); err != nil {
				t.Fatalf("the unbroken one: %v", err)
			}
			if _, err := DecodeProgramEvent(breakIt(p)); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
}
