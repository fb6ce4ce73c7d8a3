// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// Config says how the backend is reached, and what it is.
type Config struct {
	// SocketPath is where the backend listens.
	SocketPath string
	// Bound is the longest time for one rule.
	Bound time.Duration
}

// AllRules returns all rules of the suite.
func AllRules() []report.Rule { return NewSuite(Config{}).Rules() }

// NewSuite returns the suite for one backend.
func NewSuite(c Config) report.Suite {
	return &report.Checks{Bound: c.Bound}
}
