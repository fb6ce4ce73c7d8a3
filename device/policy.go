// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/device/source"
)

// Policy says which sources a device asks. The zero value is PolicyGuest.
type Policy string

// The policies.
const (
	// PolicyAuto asks the guest's driver first, and introspects when the driver
	// has no answer: it is missing, refuses, is late or fails. It does not
	// introspect when the guest relies on the contents of its free pages.
	PolicyAuto Policy = "auto"
	// PolicyGuest asks the guest's driver only.
	PolicyGuest Policy = "guest"
	// PolicyIntrospect reads guest memory from the host and asks no driver.
	PolicyIntrospect Policy = "introspect"
	// PolicyNone asks neither.
	PolicyNone Policy = "none"
)

// Policies returns all policies.
func Policies() []Policy {
	return []Policy{PolicyAuto, PolicyGuest, PolicyIntrospect, PolicyNone}
}

// Set implements flag.Value.
func (p *Policy) Set(word string) error {
	if !slices.Contains(Policies(), Policy(word)) {
		return fmt.Errorf("%q is none of %s", word, p.words())
	}
	*p = Policy(word)
	return nil
}

// String implements flag.Value.
func (p *Policy) String() string { return string(*p) }

func (*Policy) words() string {
	var words []string
	for _, p := range Policies() {
		words = append(words, string(p))
	}
	return strings.Join(words, ", ")
}

// PortPolicy says what a device takes from the guest's serial port. The zero value is
// PortRefuseOnly.
type PortPolicy string

// The policies for the port.
const (
	PortRefuseOnly PortPolicy = "refuse-only" // why the guest does not report
	PortReport     PortPolicy = "report"      // reports, too
)

// Set implements flag.Value.
func (p *PortPolicy) Set(word string) error {
	if of := PortPolicy(word); of != PortRefuseOnly && of != PortReport {
		return fmt.Errorf("%q is neither %s nor %s", word, PortReport, PortRefuseOnly)
	}
	*p = PortPolicy(word)
	return nil
}

// String implements flag.Value.
func (p *PortPolicy) String() string { return string(*p) }

// Type names the value in a program's help.
func (*PortPolicy) Type() string { return "policy" }

func (p Policy) introspects() bool { return p == PolicyAuto || p == PolicyIntrospect }

// sourcesFor returns the sources that a policy asks, in order.
func (d *Device) sourcesFor(p Policy) []source.Source {
	switch p {
	case PolicyAuto:
		return []source.Source{d.driver, d.observer}
	case PolicyIntrospect:
		return []source.Source{d.observer}
	case PolicyNone:
		return nil
	}
	return []source.Source{d.driver}
}
