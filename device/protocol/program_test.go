// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testOffer() Offer {
	return Offer{
		Digest: Digest{1, 2, 3}, Kind: KindWalk, Size: 20112, Version: 7,
		Expires: time.Unix(1_800_000_000, 0).UTC(), Nonce: 9, VM: [16]byte{4}, KeyID: [8]byte{5},
		Name: "walk-2026", Signature: [SignatureSize]byte{6},
	}
}

func testCensus() CensusReport {
	c := CensusReport{Digest: Digest{7}, Number: 1<<63 + 2, TookUS: 3, RunMaxUS: 4, Runs: 5}
	for class := range c.Counts {
		for i := range c.Counts[class] {
			c.Counts[class][i] = uint64(1000*(class+1) - i)
		}
	}
	return c
}

func TestProgramStructuresRoundTrip(t *testing.T) {
	var p [ProgramReportSize]byte
	offer := testOffer()
	offer.Encode(p[:])
	if got, err := DecodeOffer(p[:]); err != nil || got != offer {
		t.Errorf("offer: got %+v, %v", got, err)
	}
	accepts := Accepts{Kinds: KindWalk.Mask(), MaxSize: 1 << 18}
	accepts.Encode(p[:])
	if got, err := DecodeAccepts(p[:]); err != nil || got != accepts {
		t.Errorf("accepts: got %+v, %v", got, err)
	}
	get := Get{Digest: Digest{9}, Offset: 4096, Length: 100}
	get.Encode(p[:])
	if got, err := DecodeGet(p[:]); err != nil || got != get {
		t.Errorf("get: got %+v, %v", got, err)
	}
	census := testCensus()
	census.Encode(p[:])
	if got, err := DecodeCensusReport(p[:]); err != nil || got != census {
		t.Errorf("census: got %+v, %v", got, err)
	}
	report := ProgramReport{
		Digest: Digest{8}, Kind: KindWalk, State: ProgramRefused, Version: 3, FetchUS: 1, LoadUS: 2,
		Reason: "the verifier refuses it", Log: "12: R1 invalid\nprocessed 12 insns",
	}
	report.Encode(p[:])
	if got, err := DecodeProgramReport(p[:]); err != nil || got != report {
		t.Errorf("program: got %+v, %v", got, err)
	}
	for _, e := range []ProgramEvent{
		{Type: EventOffer, Nonce: 3, Digest: offer.Digest, Offer: offer},
		{Type: EventData, Nonce: 3, Digest: Digest{1}, Offset: 5, Bytes: []byte("object")},
		{Type: EventGone, Nonce: 3, Digest: Digest{1}},
		{Type: EventWithdraw, Nonce: 3, Digest: Digest{1}},
		{Type: EventCount, Nonce: 3, Digest: Digest{1}, Number: 1<<63 + 1},
	} {
		p := make([]byte, e.Size())
		e.Encode(p)
		got, err := DecodeProgramEvent(p)
		if diff := cmp.Diff(e, got); err != nil || diff != "" {
			t.Errorf("%v: %v\n%s", e.Type, err, diff)
		}
		if len(p) > MinProgramBuffer {
			t.Errorf("%v has %d bytes, more than each buffer", e.Type, len(p))
		}
	}
}

func TestProgramStructuresRefuse(t *testing.T) {
	le := binary.LittleEndian
	offer := func(p []byte) error { _, err := DecodeOffer(p); return err }
	get := func(p []byte) error { _, err := DecodeGet(p); return err }
	report := func(p []byte) error { _, err := DecodeProgramReport(p); return err }
	accepts := func(p []byte) error { _, err := DecodeAccepts(p); return err }
	data := func(p []byte) error { _, err := DecodeProgramEvent(p); return err }
	census := func(p []byte) error { _, err := DecodeCensusReport(p); return err }
	const free = censusCounts + CensusCounts*8 // where the counts of free pages are
	for name, c := range map[string]struct {
		decode  func([]byte) error
		breakIt func(p []byte)
	}{
		"an offer of kind 0":          {offer, func(p []byte) { p[offerKind] = 0 }},
		"an offer of kind 32":         {offer, func(p []byte) { p[offerKind] = 32 }},
		"an offer of nothing":         {offer, func(p []byte) { le.PutUint32(p[offerSize:], 0) }},
		"an offer of too much":        {offer, func(p []byte) { le.PutUint32(p[offerSize:], 1<<20+1) }},
		"an offer for ever and a day": {offer, func(p []byte) { p[offerExpires+7] = 1 }},
		"an offer without a name":     {offer, func(p []byte) { p[offerName] = 0 }},
		"a name with an escape":       {offer, func(p []byte) { p[offerName] = 27 }},
		"bytes after the name":        {offer, func(p []byte) { p[offerSigned-1] = 'x' }},
		"an offer's reserved field":   {offer, func(p []byte) { p[offerReserve] = 1 }},
		"a get of nothing":            {get, func(p []byte) { le.PutUint32(p[36:], 0) }},
		"a get past every end":        {get, func(p []byte) { le.PutUint32(p[36:], 1<<20) }},
		"a get that wraps":            {get, func(p []byte) { le.PutUint64(p[32:], 1<<64-1) }},
		"a get's reserved field":      {get, func(p []byte) { p[47] = 1 }},
		"a program's kind":            {report, func(p []byte) { p[32] = 99 }},
		"a program's state":           {report, func(p []byte) { p[36] = 6 }},
		"the device's own state":      {report, func(p []byte) { p[36] = 0 }},
		"a program's reserved field":  {report, func(p []byte) { p[63] = 1 }},
		"accepts' reserved field":     {accepts, func(p []byte) { p[8] = 1 }},
		"a census's state":            {census, func(p []byte) { p[40] = 2 }},
		"a census's reserved field":   {census, func(p []byte) { p[56] = 1 }},
		"a census with a part that is more than all": {census, func(p []byte) {
			le.PutUint64(p[free+8:], 2001)
		}},
		"a census of too many pages": {census, func(p []byte) {
			le.PutUint64(p[free:], 1<<40+1)
		}},
		"a census of too many pages in all": {census, func(p []byte) {
			le.PutUint64(p[free:], 1<<39)
			le.PutUint64(p[free+CensusCounts*8:], 1<<39)
		}},
		"a census that has failed, with counts": {census, func(p []byte) { p[40] = 1 }},
		"data with another length":              {data, func(p []byte) { p[EventSize+36]++ }},
		"data past every end":                   {data, func(p []byte) { p[EventSize+35] = 1 }},
		"an event of another type":              {data, func(p []byte) { p[0] = 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			var p [ProgramReportSize]byte
			o := testOffer()
			o.Encode(p[:])
			q := p[:]
			switch {
			case strings.Contains(name, "data"), strings.Contains(name, "event"):
				e := ProgramEvent{Type: EventData, Digest: Digest{1}, Offset: 5, Bytes: []byte("object")}
				q = p[:e.Size()]
				e.Encode(q)
			case strings.Contains(name, "census"):
				c := testCensus()
				c.Encode(q)
			case strings.Contains(name, "accepts"):
				(&Accepts{Kinds: 2}).Encode(q)
			case strings.Contains(name, "get"):
				(&Get{Offset: 1, Length: 1}).Encode(q)
			case strings.Contains(name, "program"), strings.Contains(name, "state"):
				(&ProgramReport{Kind: KindWalk, State: ProgramActive}).Encode(q)
			}
			if err := c.decode(q); err != nil {
				t.Fatalf("the unbroken one: %v", err)
			}
			c.breakIt(q)
			if err := c.decode(q); !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
		})
	}
}

func TestProgramReportKeepsTheBeginningOfTheReasonAndTheEndOfTheLog(t *testing.T) {
	var p [ProgramReportSize]byte
	r := ProgramReport{
		Kind: KindWalk, State: ProgramRefused,
		Reason: "why" + strings.Repeat("x", 400), Log: strings.Repeat("x", 2000) + "\nthe end\x1b[2J",
	}
	r.Encode(p[:])
	got, err := DecodeProgramReport(p[:])
	if err != nil || !strings.HasPrefix(got.Reason, "why") || len(got.Reason) != MaxProgramReason ||
		!strings.HasSuffix(got.Log, "x\nthe end?[2J") || len(got.Log) != MaxProgramLog {
		t.Fatalf("%+v, %v", got, err)
	}
}

func FuzzDecodeProgram(f *testing.F) {
	offer := testOffer()
	for _, e := range []ProgramEvent{
		{Type: EventOffer, Nonce: 3, Offer: offer},
		{Type: EventData, Nonce: 3, Digest: Digest{1}, Offset: 5, Bytes: []byte("object")},
		{Type: EventGone, Nonce: 3},
		{Type: EventCount, Nonce: 3, Digest: Digest{1}, Number: 9},
		{Type: EventSample, Nonce: 3, Digest: Digest{1}, Number: 9, Interval: time.Second},
	} {
		p := make([]byte, e.Size())
		e.Encode(p)
		f.Add(p)
	}
	f.Add(make([]byte, ProgramReportSize))
	census := testCensus()
	counted := make([]byte, CensusReportSize)
	census.Encode(counted)
	f.Add(counted)
	sample := testSample()
	part := make([]byte, SampleReportSize)
	sample.Encode(part)
	f.Add(part)
	f.Fuzz(func(t *testing.T, p []byte) {
		if e, err := DecodeProgramEvent(p); err == nil {
			q := make([]byte, e.Size())
			e.Encode(q)
			if len(q) > len(p) || !bytes.Equal(q[EventSize:], p[EventSize:len(q)]) {
				t.Fatalf("%+v has another encoding than %x", e, p)
			}
		}
		if o, err := DecodeOffer(p); err == nil {
			var q [OfferSize]byte
			if o.Encode(q[:]); !bytes.Equal(q[:], p[:OfferSize]) {
				t.Fatalf("%+v has another encoding than %x", o, p)
			}
		}
		if r, err := DecodeProgramReport(p); err == nil {
			for _, c := range r.Reason + r.Log {
				if c < ' ' && c != '\n' {
					t.Fatalf("control character %q", c)
				}
			}
		}
		if c, err := DecodeCensusReport(p); err == nil {
			for _, counts := range c.Counts {
				for _, n := range counts {
					if n > counts[CensusPages] || c.Failed && n != 0 {
						t.Fatalf("%+v", c)
					}
				}
			}
		}
		if s, err := DecodeSampleReport(p); err == nil {
			if s.First%SampledPages != 0 || s.First+SampledPages > 1<<40 {
				t.Fatalf("%+v", s)
			}
		}
		if g, err := DecodeGet(p); err == nil && uint64(g.Offset)+uint64(g.Length) > MaxProgramSize {
			t.Fatalf("%+v", g)
		}
		_, _ = DecodeAccepts(p)
	})
}
