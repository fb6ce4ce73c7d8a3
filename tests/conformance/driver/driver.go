// SPDX-License-Identifier: Apache-2.0

// Package driver checks drivers.
package driver

import "github.com/fbpp-project/fbpp/tests/conformance/report"

// Config says how the driver is reached.
type Config struct {
	// SocketPath is where the device listens for a vhost-user frontend.
	SocketPath string
}

// AllRules returns all rules of the suite.
func AllRules() []report.Rule { return NewSuite(Config{}).Rules() }

// NewSuite returns the suite for one driver.
func NewSuite(Config) report.Suite { return &report.Checks{} }
