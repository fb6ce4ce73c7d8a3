// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/protocol"
)

var countDigest = protocol.Digest{0: 0xce}

// bootCensus boots up to a driver with a census in use.
func bootCensus(t *testing.T) *machine {
	m := mustBoot(t, device.Options{})
	m.takePrograms(protocol.StatusOK)
	m.accept(protocol.KindWalk.Mask()|protocol.KindCensus.Mask(), 1<<16)
	if _, err := m.dev.GuestCensus(t.Context()); !errors.Is(err, driver.ErrNoProgramOfKind) {
		t.Fatalf("without a census: %v", err)
	}
	r := protocol.ProgramReport{
		Digest: countDigest, Kind: protocol.KindCensus, State: protocol.ProgramActive,
	}
	m.post(programMessage(protocol.MessageProgram, testNonce, protocol.ProgramReportSize, r.Encode))
	m.get(protocol.Digest{1}, 0, 1)
	m.expectProgramEvent(protocol.EventGone)
	return m
}

type guestCensus struct {
	*census.Census
	err error
}

func (m *machine) count(ctx context.Context) <-chan guestCensus {
	result := make(chan guestCensus, 1)
	go func() {
		c, err := m.dev.GuestCensus(ctx)
		result <- guestCensus{c, err}
	}()
	return result
}

func (m *machine) counted(r protocol.CensusReport) {
	m.t.Helper()
	m.post(programMessage(protocol.MessageCensus, testNonce, protocol.CensusReportSize, r.Encode))
}

func TestGuestCensus(t *testing.T) {
	m := bootCensus(t)
	result := m.count(t.Context())
	e := m.expectProgramEvent(protocol.EventCount)
	if e.Digest != countDigest {
		t.Fatalf("asked for %v", e.Digest)
	}
	if _, err := m.dev.GuestCensus(t.Context()); !errors.Is(err, driver.ErrInquiring) {
		t.Errorf("a second one: %v", err)
	}
	r := protocol.CensusReport{
		Digest: countDigest, Number: e.Number, TookUS: 5000, RunMaxUS: 700, Runs: 9,
	}
	r.Counts[pages.File] = [protocol.CensusCounts]uint64{100, 1, 2, 3, 4, 50, 6, 44}
	m.counted(r)
	c := <-result
	if c.err != nil {
		t.Fatal(c.err)
	}
	if len(c.Classes) != 1 || c.CountedUS != 5000 || c.MemoryBytes != 100<<12 ||
		c.Program == nil || c.Program.Runs != 9 || c.Program.RunMaxUS != 700 {
		t.Errorf("%+v", c.Census)
	}
	want := census.Class{Class: pages.File}
	want.Pages, want.Mapped, want.Dirty, want.Writeback = 100, 1, 2, 3
	want.SwapCache, want.Clean, want.Active, want.Cold = 4, 50, 6, 44
	if c.Classes[0] != want {
		t.Errorf("got %+v, want %+v", c.Classes[0], want)
	}
}

// Whatever becomes of a question, the caller is told, and may ask again.
func TestGuestCensusThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*machine, *protocol.CensusReport)
		want   error
	}{
		"the driver says why": {func(m *machine, r *protocol.CensusReport) {
			r.Failed, r.Reason = true, "no good"
			m.counted(*r)
		}, driver.ErrNoAnswer},
		"the session ends": {func(m *machine, _ *protocol.CensusReport) {
			m.accept(protocol.KindWalk.Mask(), 1<<16)
		}, driver.ErrNoAnswer},
		"no answer comes": {func(*machine, *protocol.CensusReport) {}, context.DeadlineExceeded},
		"the answer is another's": {func(m *machine, r *protocol.CensusReport) {
			r.Number++
			m.counted(*r)
		}, context.DeadlineExceeded},
		"the answer makes no sense": {func(m *machine, r *protocol.CensusReport) {
			r.Counts[1] = [protocol.CensusCounts]uint64{1, 2}
			m.counted(*r)
		}, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			m := bootCensus(t)
			limit := patience
			if errors.Is(c.want, context.DeadlineExceeded) {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			result := m.count(ctx)
			e := m.expectProgramEvent(protocol.EventCount)
			c.answer(m, &protocol.CensusReport{Digest: countDigest, Number: e.Number})
			if r := <-result; !errors.Is(r.err, c.want) {
				t.Fatalf("got %v, want %v", r.err, c.want)
			}
			soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := m.dev.GuestCensus(soon); errors.Is(err, driver.ErrInquiring) {
				t.Error("the question stays open")
			}
		})
	}
}
