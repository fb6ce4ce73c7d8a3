// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"maps"
	"math/bits"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// inquiryMutant is a device that asks for censuses and samples as its fields say.
type inquiryMutant struct {
	programMutant
	eager     bool // it asks a driver without a program
	confused  bool // it names another program
	doubled   bool // it asks while it has asked for the same
	crossed   bool // it asks while it has asked for the other
	hasty     bool // to it, a part of a sample ends it
	clinging  bool // it asks for a program that was withdrawn
	elephant  bool // it asks for one of an earlier session
	timeless  bool // it takes messages of another session
	greedy    bool // it asks with the last buffer
	nameless  bool // it takes an answer of any program
	uncounted bool // it takes one with any number
	restless  bool // it takes an answer after the answer
	gullible  bool // to it, a sample that failed is one
	hopeful   bool // free pages count as used
	hoarding  bool // it counts the parts of a sample that failed in the next
	stitches  bool // it counts those of a sample of another session

	active map[protocol.ProgramKind]protocol.Digest
	open   map[protocol.ProgramKind]*asked
	last   *asked // a sample
	number uint64
	kept   *device.WorkingSet // the last sample
}

// asked is a COUNT or a SAMPLE of the mutant.
type asked struct {
	digest protocol.Digest
	number uint64
	hot    map[uint64]bool // pages of the parts
	end    chan outcome
	failed bool
	ended  bool
}

// outcome is the end of an answer.
type outcome struct {
	census protocol.CensusReport
	sample *device.WorkingSet
	failed bool
}

func newInquiryMutant() *inquiryMutant {
	m := &inquiryMutant{
		active: make(map[protocol.ProgramKind]protocol.Digest),
		open:   make(map[protocol.ProgramKind]*asked),
	}
	m.gone = func(nonce uint64) []uint64 { return []uint64{nonce} }
	m.about = m.read
	m.begun = func() {
		clear(m.open)
		if !m.elephant {
			clear(m.active)
		}
	}
	return m
}

// read reads PROGRAM, CENSUS and SAMPLED. m.mu is held.
func (m *inquiryMutant) read(h protocol.Header, body []byte) {
	if h.Generation != m.newest && !m.timeless {
		return
	}
	switch h.Type {
	case protocol.MessageProgram:
		r, err := protocol.DecodeProgramReport(body)
		switch {
		case err != nil:
		case r.State == protocol.ProgramActive:
			m.active[r.Kind] = r.Digest
		case r.Digest == m.active[r.Kind] && !m.clinging:
			delete(m.active, r.Kind)
		}
	case protocol.MessageCensus:
		r, err := protocol.DecodeCensusReport(body)
		if a := m.open[protocol.KindCensus]; err == nil && m.takes(a, r.Digest, r.Number) {
			m.ends(protocol.KindCensus, a, outcome{census: r, failed: r.Failed})
		}
	case protocol.MessageSampled:
		r, err := protocol.DecodeSampleReport(body)
		a := m.open[protocol.KindSampler]
		if a == nil && m.restless {
			a = m.last
		}
		if err == nil && m.takes(a, r.Digest, r.Number) {
			m.sampled(a, &r)
		}
	}
}

// takes says whether an answer is to what was asked.
func (m *inquiryMutant) takes(a *asked, d protocol.Digest, number uint64) bool {
	return a != nil && (a.digest == d || m.nameless) && (a.number == number || m.uncounted)
}

// ends is called at the end of an answer.
func (m *inquiryMutant) ends(kind protocol.ProgramKind, a *asked, o outcome) {
	delete(m.open, kind)
	a.ended, a.failed = true, o.failed
	select {
	case a.end <- o:
	default: // there was one
	}
}

func (m *inquiryMutant) sampled(a *asked, r *protocol.SampleReport) {
	if r.State == protocol.SampleFree && !m.hopeful {
		return
	}
	for i, b := range r.Pages {
		for ; b != 0; b &= b - 1 {
			a.hot[r.First+uint64(8*i+bits.TrailingZeros8(b))] = true
		}
	}
	if r.IsPart() {
		return
	}
	o := outcome{failed: r.State == protocol.SampleFailed && !m.gullible}
	o.sample = &device.WorkingSet{HotBytes: uint64(len(a.hot)) << freeset.FrameShift}
	if !o.failed {
		m.kept = o.sample
	}
	m.ends(protocol.KindSampler, a, o)
}

// ask sends the question, or says why not.
func (m *inquiryMutant) ask(kind protocol.ProgramKind) (*asked, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := protocol.ProgramEvent{
		Type: protocol.EventCount, Nonce: m.newest, Digest: m.active[kind], Number: m.number + 1,
	}
	other := protocol.KindSampler
	if kind == protocol.KindSampler {
		e.Type, other = protocol.EventSample, protocol.KindCensus
	}
	open := m.open[kind] != nil && !m.doubled
	if m.hasty && open && len(m.open[kind].hot) > 0 {
		open = false
	}
	switch {
	case e.Digest == protocol.Digest{} && !m.eager:
		return nil, driver.ErrNoProgramOfKind
	case open || m.open[other] != nil && !m.crossed:
		return nil, driver.ErrInquiring
	case !m.spare() && !m.greedy:
		return nil, driver.ErrNoAnswer
	}
	if m.confused {
		e.Digest[0]++
	}
	m.number++
	a := &asked{
		digest: e.Digest, number: e.Number, hot: make(map[uint64]bool), end: make(chan outcome, 1),
	}
	if kind == protocol.KindSampler {
		l := m.last
		if l != nil && (m.hoarding && l.failed || m.stitches && !l.ended) {
			a.hot = maps.Clone(l.hot)
		}
		m.last = a
	}
	m.open[kind] = a
	m.send(e)
	return a, nil
}

// inquire asks, and waits for the end of the answer.
func (m *inquiryMutant) inquire(ctx context.Context, kind protocol.ProgramKind) (outcome, error) {
	a, err := m.ask(kind)
	if err != nil {
		return outcome{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	select {
	case o := <-a.end:
		if o.failed {
			return o, driver.ErrNoAnswer
		}
		return o, nil
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
}

func (m *inquiryMutant) GuestCensus(ctx context.Context) (*census.Census, error) {
	o, err := m.inquire(ctx, protocol.KindCensus)
	return census.FromGuest(&o.census, "", false), err
}

func (m *inquiryMutant) SampleWorkingSet(
	ctx context.Context, _ time.Duration,
) (*device.WorkingSet, error) {
	o, err := m.inquire(ctx, protocol.KindSampler)
	return o.sample, err
}

func (m *inquiryMutant) Status() device.Status {
	s := m.Device.Status()
	m.mu.Lock()
	defer m.mu.Unlock()
	s.WorkingSet = m.kept
	return s
}

func TestDefectsInInquiriesAreFound(t *testing.T) {
	when, what := []string{"FBPP-CEN-1", "FBPP-SMP-1"}, []string{"FBPP-CEN-3", "FBPP-SMP-3"}
	all := slices.Concat(when, what)
	for defect, c := range map[string]struct {
		mutant func(*inquiryMutant)
		rules  []string // that fail
	}{
		"":                              {func(*inquiryMutant) {}, nil},
		"a driver without one is asked": {func(m *inquiryMutant) { m.eager = true }, when},
		"another program is named":      {func(m *inquiryMutant) { m.confused = true }, all},
		"it asks twice at once":         {func(m *inquiryMutant) { m.doubled = true }, when},
		"it asks for both at once":      {func(m *inquiryMutant) { m.crossed = true }, when},
		"it asks again after a part":    {func(m *inquiryMutant) { m.hasty = true }, when[1:]},
		"it asks what was withdrawn":    {func(m *inquiryMutant) { m.clinging = true }, when},
		"it asks what a session had":    {func(m *inquiryMutant) { m.elephant = true }, when},
		"it hears another session":      {func(m *inquiryMutant) { m.timeless = true }, all},
		"it takes the last buffer":      {func(m *inquiryMutant) { m.greedy = true }, when},
		"any program may answer":        {func(m *inquiryMutant) { m.nameless = true }, what},
		"any number will do":            {func(m *inquiryMutant) { m.uncounted = true }, what},
		"a second answer counts":        {func(m *inquiryMutant) { m.restless = true }, what[1:]},
		"a failure is a sample":         {func(m *inquiryMutant) { m.gullible = true }, what[1:]},
		"free pages are hot": {
			func(m *inquiryMutant) { m.hopeful = true }, slices.Concat(when, what[1:]),
		},
		"parts of a failure count":       {func(m *inquiryMutant) { m.hoarding = true }, what[1:]},
		"parts of another session count": {func(m *inquiryMutant) { m.stitches = true }, what[1:]},
	} {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			for _, rule := range all {
				outcome := report.Pass
				if slices.Contains(c.rules, rule) {
					outcome = report.Fail
				}
				m := newInquiryMutant()
				c.mutant(m)
				config := backend.Config{
					SocketPath: serve(t, m.device()), Profile: backend.FreePage(),
					Patience: patienceFor(outcome), ControlPath: serveControl(t, m),
				}
				if r := results(t, config, rule)[rule]; r.Outcome != outcome {
					t.Errorf("%s: %v %s", rule, r.Outcome, r.Detail)
				}
			}
		})
	}
}
