// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// Config says how the backend is reached, and what it is.
type Config struct {
	// SocketPath is where the backend listens.
	SocketPath string
	// Command, if any, starts the backend. It is started where nobody
	// listens at SocketPath when a check begins, and ended with the suite.
	Command []string
	// Profile is what the device does; nil stands for Generic.
	Profile *Profile
	// Bound is the longest time for one rule, 20 seconds if 0.
	Bound time.Duration
	// Patience is the longest wait for one answer, 3 seconds if 0.
	Patience time.Duration
	// ControlPath is fbppd's control socket, to switch a free page device.
	ControlPath string
	// AgentPath is fbppd's socket for the guest's serial port.
	AgentPath string
}

// check is a rule and what checks it.
type check struct {
	id, text, source string
	// advice marks a rule that a backend should keep.
	advice bool
	run    func(*session)
}

func (c check) rule() report.Rule {
	return report.Rule{ID: c.id, Text: c.text, Source: c.source, Advice: c.advice}
}

// generic are the checks for any backend, in their order.
func generic() []check {
	return slices.Concat(messages(), features(), acks(), queues(), descriptors(), memory(),
		vrings(), notifications(), stopping(), logging(), logChanges(), config(), resets(),
		inflight(), eventIdx(), packed(), channels(), states(), sessions(),
		hostileRings(), hostileFrontends())
}

// AllRules returns the rules for any backend and those of all profiles.
func AllRules() []report.Rule {
	rules := NewSuite(Config{}).Rules()
	for _, p := range Profiles() {
		for _, c := range p.checks {
			rules = append(rules, c.rule())
		}
	}
	return rules
}

// Suite checks one backend.
type Suite struct {
	report.Checks
	peer *peer
}

// NewSuite returns the suite for one backend.
func NewSuite(c Config) *Suite {
	if c.Profile == nil {
		c.Profile = Generic()
	}
	if c.Bound == 0 {
		c.Bound = 20 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 3 * time.Second
	}
	s := &Suite{peer: &peer{path: c.SocketPath, command: c.Command}}
	s.Bound = c.Bound
	for _, chk := range slices.Concat(generic(), c.Profile.checks) {
		s.List = append(s.List, report.Check{Rule: chk.rule(), Func: func(t *report.T) {
			s.peer.begin()
			chk.run(&session{T: t, cfg: &c, peer: s.peer})
		}})
	}
	return s
}

// Run implements report.Suite.
func (s *Suite) Run(ctx context.Context, selected []report.Rule, add func(report.Result)) error {
	defer s.peer.stop()
	if err := s.peer.start(ctx); err != nil {
		return err
	}
	return s.Checks.Run(ctx, selected, add)
}
