// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// SampleHole is the largest hole between pages that were used, in frames, that a sample counts to
// them: 60 KiB.
const SampleHole = 15

// Sample is the guest's working set, as its sampler has found it. It does not change.
type Sample struct {
	Hot      *freeset.Set // the pages that were used, and small holes between them
	Free     *freeset.Set // the pages that were free when it ended
	Used     uint64       // the frames of these pages alone
	Interval time.Duration
	Taken    time.Time             // when the last answer came
	Report   protocol.SampleReport // that answer: what the sample has cost
}

// Sample has the guest find, with the sampler that is in use, which pages of memory it uses in an
// interval. The interval is at most protocol.MaxSampleInterval. The guest may lie. It fails as
// Count does. The result is kept: see WorkingSet.
func (s *Source) Sample(
	ctx context.Context, interval time.Duration, memory []freeset.Range,
) (*Sample, error) {
	f, err := s.inquire(ctx, protocol.KindSampler,
		&Sample{Hot: freeset.New(memory), Free: freeset.New(memory), Interval: interval})
	if err != nil {
		return nil, err
	}
	x := f.sample
	if x.Report.State == protocol.SampleFailed {
		return nil, fmt.Errorf("%w: it says %q", ErrNoAnswer, x.Report.Reason)
	}
	x.Used = x.Hot.Frames()
	x.Hot.CloseHoles(SampleHole) // now: a migration may have no time for so many
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.programs.session == f.session {
		s.programs.sample = x
	}
	return x, nil
}

// WorkingSet returns the last sample of the driver's session, or nil. A session ends when the
// guest is reset, or moves here from another host.
func (s *Source) WorkingSet() *Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.programs.sample
}

// sampled takes an answer. Bits are of the guest's own pages.
func (p *programs) sampled(r protocol.SampleReport, pageShift uint8) {
	a := p.awaited(true, r.Digest, r.Number)
	switch {
	case a == nil:
	case r.IsPart():
		set, frames := a.sample.Hot, uint64(1)<<(pageShift-freeset.FrameShift)
		if r.State == protocol.SampleFree {
			set = a.sample.Free
		}
		_, _, _ = set.Add(blocksOf(&r, frames), true) // overlaps and holes are no errors
	default:
		p.asked = nil
		a.sample.Taken, a.sample.Report = time.Now(), r
		a.answer <- finding{sample: a.sample, session: p.session}
	}
}

// blocksOf returns the runs of pages whose bits are set. A page has so many frames.
func blocksOf(r *protocol.SampleReport, frames uint64) (blocks []freeset.Block) {
	run := uint64(0) // of pages that end before i
	for i := range uint64(protocol.SampledPages + 1) {
		if i < protocol.SampledPages && r.Pages[i/8]>>(i%8)&1 != 0 {
			run++
			continue
		}
		if run > 0 {
			first := (r.First + i - run) * frames
			blocks = append(blocks, freeset.Block{First: first, Count: run * frames})
		}
		run = 0
	}
	return blocks
}
