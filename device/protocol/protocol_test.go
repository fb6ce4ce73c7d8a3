// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecordPacksPFNAndOrder(t *testing.T) {
	r := MakeRecord(0x123456789abcde, 10)
	if r.PFN() != 0x123456789abcde || r.Order() != 10 || r.Class() != ClassFree {
		t.Fatalf("record %#x unpacks to %v", uint64(r), r)
	}
	if got := Record(0xc5).Class(); got != 3 {
		t.Fatalf("class of 0xc5 = %d, want 3", got)
	}
}

func TestEveryStructureRoundTrips(t *testing.T) {
	var p [256]byte

	config := Config{Flags: ConfigEnabled, BudgetUS: 500, BudgetEntries: 20000}
	config.Encode(p[:])
	if got, err := DecodeConfig(p[:]); err != nil || got != config {
		t.Errorf("config: got %+v, %v", got, err)
	}

	event := Event{
		Type: EventReportFree, Flags: 1, BudgetUS: 2,
		Generation: 3, DeadlineMS: 4, BudgetEntries: 5, DropMiB: 6, DropMS: 7,
	}
	event.Encode(p[:])
	if got, err := DecodeEvent(p[:]); err != nil || got != event {
		t.Errorf("event: got %+v, %v", got, err)
	}

	header := Header{
		Type: MessageReport, Flags: FlagLast | FlagResumed,
		Count: 9, Generation: 1 << 40, PageShift: 16,
	}
	header.Encode(p[:])
	if got, err := DecodeHeader(p[:]); err != nil || got != header {
		t.Errorf("header: got %+v, %v", got, err)
	}

	trailer := Trailer{
		Records: 1, WalkUS: 2, HoldMaxUS: 3, Holds: 4, LeftOut: 5, Dropped: 6, DropUS: 7,
	}
	trailer.Encode(p[:])
	if got, err := DecodeTrailer(p[:]); err != nil || got != trailer {
		t.Errorf("trailer: got %+v, %v", got, err)
	}

	hello := Hello{
		Features: FeatureInitOnFree, MaxOrder: 10, RAMBytes: 1 << 33,
		Release: "Linux 6.12", Reason: "because",
	}
	hello.Encode(p[:])
	got, err := DecodeHello(p[:])
	if diff := cmp.Diff(hello, got); err != nil || diff != "" {
		t.Errorf("hello: %v, %s", err, diff)
	}
}

func TestHeaderRefuses(t *testing.T) {
	valid := Header{Type: MessageReport, Count: 1, Generation: 1, PageShift: 12}
	for name, breakIt := range map[string]func(p []byte){
		"type 0":                           func(p []byte) { p[0] = 0 },
		"a type from the future":           func(p []byte) { p[0] = 7 },
		"an unknown flag":                  func(p []byte) { p[2] = 0x80 },
		"an unknown status":                func(p []byte) { p[16] = 9 },
		"a page shift below 12":            func(p []byte) { p[20] = 11 },
		"a page shift above 16":            func(p []byte) { p[20] = 17 },
		"a reserved byte":                  func(p []byte) { p[22] = 1 },
		"the reserved word":                func(p []byte) { p[31] = 1 },
		"records in HELLO":                 func(p []byte) { p[0] = 1 },
		"records beside a failed status":   func(p []byte) { p[16] = 4; p[2] = FlagLast },
		"a failed status that is not LAST": func(p []byte) { p[16] = 4; p[4] = 0 },
		"a failed status in STARTED":       func(p []byte) { p[0] = 2; p[16] = 4; p[4] = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			var p [HeaderSize]byte
			valid.Encode(p[:])
			if _, err := DecodeHeader(p[:]); err != nil {
				t.Fatalf("the unbroken header: %v", err)
			}
			breakIt(p[:])
			if _, err := DecodeHeader(p[:]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
		})
	}
}

func TestHelloRefuses(t *testing.T) {
	valid := Hello{MaxOrder: 10, Release: "Linux 6.12"}
	for name, breakIt := range map[string]func(p []byte){
		"an order that no record has": func(p []byte) { p[4] = MaxOrder + 1 },
		"the first reserved byte":     func(p []byte) { p[5] = 1 },
		"the second reserved byte":    func(p []byte) { p[6] = 1 },
		"the third reserved byte":     func(p []byte) { p[7] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			var p [HelloSize]byte
			valid.Encode(p[:])
			if _, err := DecodeHello(p[:]); err != nil {
				t.Fatalf("the unbroken hello: %v", err)
			}
			breakIt(p[:])
			if _, err := DecodeHello(p[:]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
		})
	}
}

func TestShortInputIsMalformed(t *testing.T) {
	decoders := map[string]struct {
		size   int
		decode func([]byte) error
	}{
		"config":  {ConfigSize, func(p []byte) error { _, err := DecodeConfig(p); return err }},
		"event":   {EventSize, func(p []byte) error { _, err := DecodeEvent(p); return err }},
		"header":  {HeaderSize, func(p []byte) error { _, err := DecodeHeader(p); return err }},
		"trailer": {TrailerSize, func(p []byte) error { _, err := DecodeTrailer(p); return err }},
		"hello":   {HelloSize, func(p []byte) error { _, err := DecodeHello(p); return err }},
	}
	for name, d := range decoders {
		t.Run(name, func(t *testing.T) {
			if err := d.decode(make([]byte, d.size-1)); !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
		})
	}
}

func TestHelloStringsAreSafeToPrint(t *testing.T) {
	var p [HelloSize]byte
	h := Hello{Release: "evil\x1b[2J\xffname\n", Reason: strings.Repeat("x", 200)}
	h.Encode(p[:])
	got, err := DecodeHello(p[:])
	if err != nil {
		t.Fatal(err)
	}
	if want := "evil?[2J?name?"; got.Release != want {
		t.Errorf("release %q, want %q", got.Release, want)
	}
	if len(got.Reason) != 80 {
		t.Errorf("reason has %d bytes, want it cut to 80", len(got.Reason))
	}
}

func FuzzDecode(f *testing.F) {
	var p [HeaderSize + HelloSize]byte
	h := Header{Type: MessageHello, PageShift: 12}
	h.Encode(p[:])
	f.Add(p[:])
	f.Add([]byte{})
	e := Event{Type: EventReportFree, Flags: EventDropCache, DropMiB: 1 << 31, DropMS: 1}
	e.Encode(p[:])
	f.Add(p[:EventSize])
	trailer := Trailer{Records: 1, Dropped: 1<<32 - 1, DropUS: 1<<32 - 1}
	trailer.Encode(p[:])
	f.Add(p[:TrailerSize])
	f.Fuzz(func(t *testing.T, p []byte) {
		if h, err := DecodeHeader(p); err == nil {
			var q [HeaderSize]byte
			h.Encode(q[:])
			if string(q[:]) != string(p[:HeaderSize]) {
				t.Fatalf("header %v does not round trip", h)
			}
			if h.Size() > HeaderSize+TrailerSize+RecordSize<<32 {
				t.Fatalf("size %d", h.Size())
			}
		}
		if hello, err := DecodeHello(p); err == nil {
			for _, r := range hello.Release + hello.Reason {
				if r < ' ' {
					t.Fatalf("control character %q", r)
				}
			}
		}
		_, _ = DecodeEvent(p)
		_, _ = DecodeConfig(p)
		_, _ = DecodeTrailer(p)
	})
}

func TestHintStatusesHaveQEMUsNames(t *testing.T) {
	for status, want := range map[HintStatus]string{
		0: "ok", 2: "incompatible", 9: "timeout", 14: "internal", 15: "not-shared",
		16: "nothing-to-send", 17: "status(17)",
	} {
		if got := status.String(); got != want {
			t.Errorf("status %d is %q, want %q", uint32(status), got, want)
		}
	}
}

func TestEachStatusHasANameOfItsOwn(t *testing.T) {
	seen := make(map[string]bool)
	for s := range AnswerStatus(NumAnswers) {
		if i := s.Info(); i.Name == "" || seen[i.Name] || i.Meaning == "" || s.String() != i.Name {
			t.Errorf("status %d: %+v", uint32(s), i)
		}
		seen[s.String()] = true
	}
	unknown := AnswerStatus(NumAnswers)
	if unknown.Info() != AnswerInternal.Info() || unknown.String() != "status(8)" {
		t.Errorf("status %v: %+v", unknown, unknown.Info())
	}
	clear(seen)
	for s := range HintStatus(NumHints) {
		if s.String() == "" || seen[s.String()] {
			t.Errorf("hint status %d: %q", uint32(s), s)
		}
		seen[s.String()] = true
	}
}
