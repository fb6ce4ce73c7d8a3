// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// censusMutant is a device that asks for a census as its fields say.
type censusMutant struct {
	programMutant
	eager    bool // it asks a driver without a census
	confused bool // it names another program
	doubled  bool // it asks while a COUNT is open
	clinging bool // it asks for a census that was withdrawn
	elephant bool // it asks for one of an earlier session
	lax      bool // it takes any answer

	active  protocol.Digest
	open    bool
	answers chan protocol.CensusReport
}

func newCensusMutant() *censusMutant {
	m := &censusMutant{answers: make(chan protocol.CensusReport, 8)}
	m.gone = func(nonce uint64) []uint64 { return []uint64{nonce} }
	m.about = m.read
	m.begun = func() {
		if !m.elephant {
			m.active = protocol.Digest{}
		}
	}
	return m
}

// read reads PROGRAM and CENSUS. m.mu is held.
func (m *censusMutant) read(h protocol.Header, body []byte) {
	switch h.Type {
	case protocol.MessageProgram:
		r, err := protocol.DecodeProgramReport(body)
		switch {
		case err != nil:
		case r.State == protocol.ProgramActive:
			m.active = r.Digest
		case r.Digest == m.active && !m.clinging:
			m.active = protocol.Digest{}
		}
	case protocol.MessageCensus:
		r, err := protocol.DecodeCensusReport(body)
		ours := r.Number == 1 && r.Digest == m.active
		if err == nil && m.open && (ours || m.lax) {
			m.answers <- r
		}
	}
}

// GuestCensus asks the driver.
func (m *censusMutant) GuestCensus(ctx context.Context) (*census.Census, error) {
	m.mu.Lock()
	if m.active == (protocol.Digest{}) && !m.eager || m.open && !m.doubled {
		m.mu.Unlock()
		return nil, driver.ErrNoProgramOfKind
	}
	e := protocol.ProgramEvent{
		Type: protocol.EventCount, Nonce: m.first, Digest: m.active, Number: 1,
	}
	if m.confused {
		e.Digest[0]++
	}
	m.open = true
	m.send(e)
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	select {
	case r := <-m.answers:
		m.mu.Lock()
		m.open = false
		m.mu.Unlock()
		return census.FromGuest(&r, "", false), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestDefectsInCensusesAreFound(t *testing.T) {
	for defect, c := range map[string]struct {
		mutant func(*censusMutant)
		rules  []string // that fail
	}{
		"": {func(*censusMutant) {}, nil},
		"a driver without one is asked": {
			func(m *censusMutant) { m.eager = true }, []string{"FBPP-CEN-1"}},
		"another program is named": {
			func(m *censusMutant) { m.confused = true }, []string{"FBPP-CEN-1", "FBPP-CEN-3"}},
		"it asks again before an answer": {
			func(m *censusMutant) { m.doubled = true }, []string{"FBPP-CEN-1"}},
		"it asks for a census that was withdrawn": {
			func(m *censusMutant) { m.clinging = true }, []string{"FBPP-CEN-1"}},
		"it asks for one of an earlier session": {
			func(m *censusMutant) { m.elephant = true }, []string{"FBPP-CEN-1"}},
		"any answer is good": {
			func(m *censusMutant) { m.lax = true }, []string{"FBPP-CEN-3"}},
	} {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			want := map[string]report.Outcome{"FBPP-CEN-1": report.Pass, "FBPP-CEN-3": report.Pass}
			for _, rule := range c.rules {
				want[rule] = report.Fail
			}
			for rule, outcome := range want {
				m := newCensusMutant()
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
