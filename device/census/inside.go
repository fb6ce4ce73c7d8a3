// SPDX-License-Identifier: Apache-2.0

package census

import (
	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// Program describes the program of a census that the guest took itself.
type Program struct {
	Digest   string `json:"digest"`
	Runs     uint32 `json:"runs"`
	RunMaxUS uint32 `json:"run_max_us"` // the longest run, in microseconds
}

// The protocol's classes are those of package pages.
var _ [pages.Classes]struct{} = [protocol.CensusClasses]struct{}{}

// FromGuest returns what a guest says that it uses its memory for. It may lie. It does not know
// zones, nor how much memory the host has allocated. MemoryBytes is the sum of its pages.
func FromGuest(r *protocol.CensusReport, release string, contentMatters bool) *Census {
	c := &Census{
		Release: release, ContentMatters: contentMatters, CountedUS: int64(r.TookUS),
		Program: &Program{Digest: r.Digest.String(), Runs: r.Runs, RunMaxUS: r.RunMaxUS},
	}
	c.Classes = classes(func(class pages.Class) introspect.Counts {
		n := &r.Counts[class]
		c.MemoryBytes += n[protocol.CensusPages] << protocol.MinPageShift
		return introspect.Counts{
			Pages: n[protocol.CensusPages], Mapped: n[protocol.CensusMapped],
			Dirty: n[protocol.CensusDirty], Writeback: n[protocol.CensusWriteback],
			SwapCache: n[protocol.CensusSwapCache], Clean: n[protocol.CensusClean],
			Active: n[protocol.CensusActive], Cold: n[protocol.CensusCold],
		}
	})
	return c
}
