// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
	"time"
)

// MaxSampleInterval bounds the interval of a SAMPLE.
const MaxSampleInterval = time.Minute

// SampleState says what a SAMPLED message is.
type SampleState uint32

// The states. A sample is any number of parts, and one of the others at its end.
const (
	SamplePart   SampleState = 0 // some of the hot pages
	SampleDone   SampleState = 1 // all of them were in the parts
	SampleFailed SampleState = 2 // the parts are of no use: see Reason
	SampleFree   SampleState = 3 // a part, too: some of the pages that are free
)

// SampledPages is how many pages a part is about.
const SampledPages = 4096

// SampleReport is the body of SAMPLED: which pages the guest has used lately, and which are
// free.
type SampleReport struct {
	Digest   Digest // of the program that has looked
	Number   uint64 // of the SAMPLE that is answered
	State    SampleState
	TookUS   uint32 // microseconds, from the event to this message
	RunMaxUS uint32 // the longest run of the program
	Runs     uint32

	// First and Pages are of a part only. First is the page frame, in the guest's own pages, of
	// the first bit of Pages, the lowest of its first byte. It is a multiple of SampledPages.
	First uint64
	Pages [SampledPages / 8]byte

	Reason string // why it failed
}

// Lengths of the parts of SAMPLED in bytes.
const (
	SampleReportSize = 768
	MaxSampleReason  = SampleReportSize - sampleReason

	samplePages  = 64
	sampleReason = samplePages + SampledPages/8
)

// maxSampledFrame bounds a page frame, so that no address wraps.
const maxSampledFrame = 1 << (52 - MinPageShift)

// Encode writes the body into p, which has at least SampleReportSize bytes. A reason that is
// too long loses its end.
func (s *SampleReport) Encode(p []byte) {
	p = p[:SampleReportSize]
	clear(p)
	le := binary.LittleEndian
	copy(p, s.Digest[:])
	le.PutUint64(p[32:], s.Number)
	le.PutUint32(p[40:], uint32(s.State))
	le.PutUint32(p[44:], s.TookUS)
	le.PutUint32(p[48:], s.RunMaxUS)
	le.PutUint32(p[52:], s.Runs)
	le.PutUint64(p[56:], s.First)
	copy(p[samplePages:], s.Pages[:])
	copy(p[sampleReason:], s.Reason)
}

// DecodeSampleReport reads and checks the body of SAMPLED. Its reason is safe to print.
func DecodeSampleReport(p []byte) (SampleReport, error) {
	if len(p) < SampleReportSize {
		return SampleReport{}, fmt.Errorf("decode sample: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	s := SampleReport{
		Digest:   Digest(p),
		Number:   le.Uint64(p[32:]),
		State:    SampleState(le.Uint32(p[40:])),
		TookUS:   le.Uint32(p[44:]),
		RunMaxUS: le.Uint32(p[48:]),
		Runs:     le.Uint32(p[52:]),
		First:    le.Uint64(p[56:]),
		Pages:    [SampledPages / 8]byte(p[samplePages:]),
		Reason:   Printable(p[sampleReason:SampleReportSize]),
	}
	none := s.First == 0 && s.Pages == [SampledPages / 8]byte{}
	switch {
	case s.State > SampleFree, !s.IsPart() && !none,
		s.First%SampledPages != 0, s.First >= maxSampledFrame:
		return s, fmt.Errorf("decode sample: state %d with pages from %#x on: %w",
			s.State, s.First, ErrMalformed)
	}
	return s, nil
}

// IsPart says whether the message is a part of a sample.
func (s *SampleReport) IsPart() bool { return s.State == SamplePart || s.State == SampleFree }
