// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"slices"
	"time"
)

// HotPolicy says what counts as hot: as memory that the guest is about to use. It is sent first by
// a migration that has a use for an order. The zero value is HotAuto.
type HotPolicy string

// The policies for hot memory.
const (
	// HotAuto is a sample where there is one, and otherwise HotKernel.
	HotAuto HotPolicy = "auto"
	// HotKernel is what the guest's kernel uses itself, and what it counts as used lately. Only
	// introspection tells.
	HotKernel HotPolicy = "kernel"
	// HotSample is what the guest's driver has found in a sample.
	HotSample HotPolicy = "sample"
	// HotWritten is what is written in the first Options.HotTime of the migration, as the frontend's
	// dirty log has it. It takes that time, and needs nothing of the guest.
	HotWritten HotPolicy = "written"
)

// HotPolicies returns all policies.
func HotPolicies() []HotPolicy { return []HotPolicy{HotAuto, HotKernel, HotSample, HotWritten} }

// DefaultHotTime is the default of Options.HotTime.
const DefaultHotTime = 500 * time.Millisecond

// Set implements flag.Value.
func (p *HotPolicy) Set(word string) error {
	if !slices.Contains(HotPolicies(), HotPolicy(word)) {
		return fmt.Errorf("%q is none of %q", word, HotPolicies())
	}
	*p = HotPolicy(word)
	return nil
}

// String implements flag.Value.
func (p *HotPolicy) String() string { return string(p.known()) }

// Type names the value in a program's help.
func (*HotPolicy) Type() string { return "policy" }

// known returns the policy that is followed: HotAuto for one that is none.
func (p *HotPolicy) known() HotPolicy {
	if slices.Contains(HotPolicies(), *p) {
		return *p
	}
	return HotAuto
}
