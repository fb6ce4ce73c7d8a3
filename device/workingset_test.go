// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/device/window/windowtest"
)

var samplerDigest = protocol.Digest{0: 0x5a}

// bootSampler boots up to a driver with a sampler in use.
func bootSampler(t *testing.T, o device.Options) *machine {
	t.Helper()
	m := mustBoot(t, o)
	m.takePrograms(protocol.StatusOK)
	m.accept(protocol.KindWalk.Mask()|protocol.KindSampler.Mask(), 1<<16)
	r := protocol.ProgramReport{
		Digest: samplerDigest, Kind: protocol.KindSampler, State: protocol.ProgramActive,
	}
	m.post(programMessage(protocol.MessageProgram, testNonce, protocol.ProgramReportSize, r.Encode))
	m.get(protocol.Digest{1}, 0, 1)
	m.expectProgramEvent(protocol.EventGone)
	return m
}

type sampled struct {
	*device.WorkingSet
	err error
}

func (m *machine) sample(ctx context.Context) <-chan sampled {
	result := make(chan sampled, 1)
	go func() {
		s, err := m.dev.SampleWorkingSet(ctx, 3*time.Second)
		result <- sampled{s, err}
	}()
	return result
}

func (m *machine) answerSample(r protocol.SampleReport) {
	m.t.Helper()
	m.post(programMessage(protocol.MessageSampled, testNonce, protocol.SampleReportSize, r.Encode))
}

// partOf is a part of the answer to an event, with frames 500 to 501, 505 to 514 and 1100 hot.
func partOf(e *protocol.ProgramEvent) protocol.SampleReport {
	r := protocol.SampleReport{Digest: e.Digest, Number: e.Number}
	for _, frame := range []int{500, 501, 505, 506, 507, 508, 509, 510, 511, 512, 513, 514, 1100} {
		r.Pages[frame/8] |= 1 << (frame % 8)
	}
	return r
}

func (m *machine) mustSample() *device.WorkingSet {
	m.t.Helper()
	result := m.sample(m.t.Context())
	e := m.expectProgramEvent(protocol.EventSample)
	if e.Digest != samplerDigest || e.Interval != 3*time.Second {
		m.t.Fatalf("asked for %+v", e)
	}
	r := partOf(&e)
	m.answerSample(r)
	m.answerSample(r) // two parts may be of the same pages
	free := protocol.SampleReport{Digest: e.Digest, Number: e.Number, State: protocol.SampleFree}
	for frame := 512; frame < 1024; frame++ {
		free.Pages[frame/8] |= 1 << (frame % 8)
	}
	free.Pages[1200/8] |= 0xf // these are not free any more when the guest migrates
	m.answerSample(free)
	r.First = 1 << 30 // in no memory
	m.answerSample(r)
	m.answerSample(protocol.SampleReport{
		Digest: e.Digest, Number: e.Number, State: protocol.SampleDone,
		TookUS: 5000, Runs: 9, RunMaxUS: 700,
	})
	s := <-result
	if s.err != nil {
		m.t.Fatal(s.err)
	}
	return s.WorkingSet
}

// What a sample has found is hot in the migrations after it, whoever else knows an order.
func TestSampleIsTheOrder(t *testing.T) {
	free := windowtest.Answer{Bytes: 512 << 12, Ranges: block512()}
	hot := free
	hot.Hot = []freeset.Range{frames(500, 12), frames(1100, 1), frames(1200, 4)}
	withCold := hot
	withCold.Cold = []freeset.Range{frames(1024, 16), frames(1102, 4)}
	none := func(context.Context, *source.Order) error { return errors.New("no luck") }
	for name, c := range map[string]struct {
		cache device.CachePolicy
		find  func(context.Context, *source.Order) error
		want  windowtest.Answer
	}{
		"nobody else is asked":           {device.CacheSend, nil, hot},
		"another knows what is cold":     {device.CacheLast, around, withCold},
		"another does not know its cold": {device.CacheLast, none, hot},
	} {
		t.Run(name, func(t *testing.T) {
			find := c.find
			if find == nil {
				find = func(context.Context, *source.Order) error {
					t.Error("another was asked")
					return nil
				}
			}
			m := bootSampler(t, device.Options{Cache: c.cache, Order: ordering{find: find}})
			s := m.mustSample()
			want := device.WorkingSet{
				Taken: s.Taken, IntervalMS: 3000, HotBytes: 13 << 12, MemoryBytes: s.MemoryBytes,
				TookUS: 5000, Runs: 9, RunMaxUS: 700, Digest: samplerDigest.String(),
			}
			if diff := cmp.Diff(want, *s); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(s, m.dev.Status().WorkingSet); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.want, m.driverAnswers()); diff != "" {
				t.Error(diff)
			}
			if x := m.dev.Status().Last; x.OrderSource != "sampler" || x.HotBytes != 17<<12 {
				t.Errorf("%+v", x)
			}
		})
	}
}

// An old sample tells nothing, and neither does one of a session that has ended.
func TestSampleIsForgotten(t *testing.T) {
	for name, forget := range map[string]func(m *machine){
		"by time":             func(m *machine) { m.dev.AgeSample(10 * time.Minute) },
		"with its session":    func(m *machine) { m.accept(protocol.KindWalk.Mask(), 1<<16) },
		"when it is repeated": func(m *machine) { m.mustSample(); m.dev.AgeSample(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Bool
			m := bootSampler(t, device.Options{Order: ordering{find: func(
				ctx context.Context, o *source.Order,
			) error {
				asked.Store(true)
				return around(ctx, o)
			}}})
			m.mustSample()
			forget(m)
			if diff := cmp.Diff(aroundFree(false), m.driverAnswers()); diff != "" || !asked.Load() {
				t.Errorf("asked another: %v\n%s", asked.Load(), diff)
			}
		})
	}
}

// Whatever becomes of a question, the caller is told, nothing is kept, and it may be asked again.
func TestSampleThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(m *machine, part, last protocol.SampleReport)
		want   error
	}{
		"the driver says why": {func(m *machine, part, last protocol.SampleReport) {
			last.State, last.Reason = protocol.SampleFailed, "no good"
			m.answerSample(part)
			m.answerSample(last)
		}, driver.ErrNoAnswer},
		"the session ends": {func(m *machine, part, _ protocol.SampleReport) {
			m.answerSample(part)
			m.accept(protocol.KindWalk.Mask(), 1<<16)
		}, driver.ErrNoAnswer},
		"the end does not come": {func(m *machine, part, _ protocol.SampleReport) {
			m.answerSample(part)
		}, context.Canceled},
		"the answer is another's": {func(m *machine, _, last protocol.SampleReport) {
			last.Number++
			m.answerSample(last)
		}, context.Canceled},
		"the answer is a census": {func(m *machine, part, _ protocol.SampleReport) {
			m.counted(protocol.CensusReport{Digest: part.Digest, Number: part.Number})
		}, context.Canceled},
		"the answer makes no sense": {func(m *machine, part, last protocol.SampleReport) {
			part.State = protocol.SampleDone
			m.answerSample(part)
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			m := bootSampler(t, device.Options{})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			result := m.sample(ctx)
			e := m.expectProgramEvent(protocol.EventSample)
			soon, cancelSoon := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancelSoon()
			if _, err := m.dev.SampleWorkingSet(soon, 0); !errors.Is(err, driver.ErrInquiring) {
				t.Errorf("a second one: %v", err)
			}
			c.answer(m, partOf(&e), protocol.SampleReport{
				Digest: e.Digest, Number: e.Number, State: protocol.SampleDone,
			})
			if errors.Is(c.want, context.Canceled) {
				m.get(protocol.Digest{1}, 0, 1) // the device has read what came before
				m.expectProgramEvent(protocol.EventGone)
				cancel()
			}
			if r := <-result; !errors.Is(r.err, c.want) {
				t.Fatalf("got %v, want %v", r.err, c.want)
			}
			again, cancelAgain := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancelAgain()
			if _, err := m.dev.SampleWorkingSet(again, 0); errors.Is(err, driver.ErrInquiring) {
				t.Error("the question stays open")
			}
			if s := m.dev.Status().WorkingSet; s != nil {
				t.Errorf("%+v is kept", s)
			}
		})
	}
}

func TestSampleNeedsAProgramAndMemory(t *testing.T) {
	d := device.New(device.Options{})
	if _, err := d.SampleWorkingSet(t.Context(), 0); !errors.Is(err, device.ErrNoMemory) {
		t.Errorf("without memory: %v", err)
	}
	m := mustBoot(t, device.Options{})
	m.takePrograms(protocol.StatusOK)
	m.accept(protocol.KindSampler.Mask(), 1<<16)
	if _, err := m.dev.SampleWorkingSet(t.Context(), 0); !errors.Is(err, driver.ErrNoProgramOfKind) {
		t.Errorf("without a program: %v", err)
	}
	if _, err := m.dev.SampleWorkingSet(t.Context(), protocol.MaxSampleInterval+1); err == nil {
		t.Error("a sample of more than a minute")
	}
}
