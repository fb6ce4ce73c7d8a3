// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// newSamplerHost returns a host that offers a walk, a census and a sampler, and programs that
// take them. The sampler finds pages in so many windows.
func newSamplerHost(t *testing.T, windows int) (*host, *fakePrograms) {
	h, p := newCensusHost(t)
	h.sampler = true
	p.kinds |= protocol.KindSampler.Mask()
	p.samples = func(
		_ context.Context, interval time.Duration, part func(first uint64, hot, free []byte) error,
	) (protocol.SampleReport, error) {
		time.Sleep(interval)
		for i := range windows {
			hot, free := make([]byte, protocol.SampledPages/8), make([]byte, protocol.SampledPages/8)
			hot[i] = 1
			if i == 1 {
				free[7] = 2
			}
			if err := part(uint64(i)*protocol.SampledPages, hot, free); err != nil {
				return protocol.SampleReport{}, err
			}
		}
		return protocol.SampleReport{State: protocol.SampleDone, Runs: uint32(windows)}, nil
	}
	return h, p
}

// sample asks for a sample of a second.
func (h *host) sample(number uint64) {
	h.send(protocol.ProgramEvent{
		Type: protocol.EventSample, Digest: samplerDigest, Number: number, Interval: time.Second,
	})
}

// sampled returns what came of each number: "part"s, "free" parts, and an end.
func sampled(h *host) map[uint64][]string {
	all := make(map[uint64][]string)
	for _, r := range h.samples {
		what := "part"
		switch r.State {
		case protocol.SampleFree:
			what = "free"
		case protocol.SampleDone:
			what = "done"
		case protocol.SampleFailed:
			what = r.Reason
		}
		all[r.Number] = append(all[r.Number], what)
	}
	return all
}

// A sample comes in parts, in their order, and then it ends.
func TestSampleComesInParts(t *testing.T) {
	h, p := newSamplerHost(t, 5)
	h.on["sampler active"] = func() { h.sample(3) }
	h.play(p, testGuest)
	want := map[uint64][]string{3: {"part", "part", "free", "part", "part", "part", "done"}}
	if diff := cmp.Diff(want, sampled(h)); diff != "" {
		t.Fatal(diff)
	}
	free := h.samples[2]
	if free.First != protocol.SampledPages || free.Pages[7] != 2 || free.Digest != samplerDigest {
		t.Errorf("free pages from %d on", free.First)
	}
	for i, r := range slices.Delete(slices.Clone(h.samples[:6]), 2, 3) {
		if r.First != uint64(i)*protocol.SampledPages || r.Pages[i] != 1 || r.Digest != samplerDigest {
			t.Errorf("part %d is of page %d", i, r.First)
		}
	}
	if last := h.samples[6]; last.Runs != 5 || last.TookUS != 1e6 || last.Digest != samplerDigest {
		t.Errorf("it ends with %+v", last)
	}
}

// One inquiry is under way at a time, and a migration ends it.
func TestSampleIsEnded(t *testing.T) {
	withdraw := func(h *host, d protocol.Digest) {
		h.send(protocol.ProgramEvent{Type: protocol.EventWithdraw, Digest: d})
	}
	for name, c := range map[string]struct {
		do   func(*host) // when all programs are in use
		want map[uint64][]string
	}{
		"by a migration": {
			func(h *host) { h.sample(1); h.events <- ask(7) },
			map[uint64][]string{1: {errMigration.Error()}},
		},
		"by a migration, and so is what waits": {
			func(h *host) { h.sample(1); h.sample(2); h.events <- ask(7) },
			map[uint64][]string{1: {errGivenUp.Error()}, 2: {errMigration.Error()}},
		},
		"by its withdrawal": {
			func(h *host) { h.sample(1); withdraw(h, samplerDigest); h.sample(2) },
			map[uint64][]string{1: {errStopped.Error()}, 2: {errNotInUse.Error()}},
		},
		"not by that of a census": {
			func(h *host) { h.sample(1); withdraw(h, censusDigest) },
			map[uint64][]string{1: {"part", "done"}},
		},
		"by another, for which the device has given it up": {
			func(h *host) { h.sample(1); h.sample(2) },
			map[uint64][]string{1: {errGivenUp.Error()}, 2: {"part", "done"}},
		},
		"by a census": {
			func(h *host) { h.sample(1); h.count(2) },
			map[uint64][]string{1: {errGivenUp.Error()}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, p := newSamplerHost(t, 1)
			watched := p.samples
			p.samples = func(
				ctx context.Context, interval time.Duration, part func(uint64, []byte, []byte) error,
			) (protocol.SampleReport, error) {
				select {
				case <-ctx.Done():
					return protocol.SampleReport{}, context.Cause(ctx)
				case <-time.After(interval):
					return watched(ctx, 0, part)
				}
			}
			h.on["sampler active"] = func() { c.do(h) }
			h.play(p, testGuest)
			if diff := cmp.Diff(c.want, sampled(h)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Parts for a device that has gone are sent to no other, and do not keep the agent's program.
func TestSampleOfAnEarlierSession(t *testing.T) {
	h, p := newSamplerHost(t, 4)
	var ended error
	watched := p.samples
	p.samples = func(
		ctx context.Context, interval time.Duration, part func(uint64, []byte, []byte) error,
	) (protocol.SampleReport, error) {
		r, err := watched(ctx, interval, func(first uint64, hot, free []byte) error {
			h.events <- protocol.Event{
				Type: protocol.EventChanged, Flags: protocol.EventHelloWanted,
			}
			<-ctx.Done()
			return part(first, hot, free)
		})
		ended = err
		return r, err
	}
	h.on["sampler active"] = func() { h.sample(3) }
	h.play(p, testGuest)
	if len(h.samples) != 0 || !errors.Is(ended, errNewDevice) {
		t.Errorf("%d answers, and it ended by %v", len(h.samples), ended)
	}
}

// What waits for the end of a sample is forgotten with its session. The next device has not asked
// it, and is told nothing of it [FBPP-SMP-2].
func TestWhatWaitsIsForgottenWithItsSession(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*host) // in the next session, while the sample goes on
		want map[uint64][]string
	}{
		"where that asks for another": {
			func(h *host) { h.sample(3) }, map[uint64][]string{3: {"part", "done"}},
		},
		"where that migrates":     {func(h *host) { h.events <- ask(7) }, map[uint64][]string{}},
		"where that asks nothing": {func(*host) {}, map[uint64][]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			h, p := newSamplerHost(t, 1) // it does not end before its interval does
			h.on["sampler active"] = func() {
				h.sample(1)
				h.sample(2)
				h.on["sampler active"] = func() { c.do(h) }
				h.events <- protocol.Event{
					Type: protocol.EventChanged, Flags: protocol.EventHelloWanted,
				}
			}
			h.play(p, testGuest)
			if diff := cmp.Diff(c.want, sampled(h)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
