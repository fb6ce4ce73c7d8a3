// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// record is one migration that was run, or that was not to be run to its end.
type record struct {
	run
	Error string `json:"error,omitempty"` // why there are no figures

	TookMS     int64 `json:"took_ms"`    // the whole run, boot and all
	PrepareMS  int64 `json:"prepare_ms"` // what the method needs before the migration
	SetupMS    int64 `json:"setup_ms"`
	TotalMS    int64 `json:"total_ms"`
	DowntimeMS int64 `json:"downtime_ms"`
	LeadMS     int64 `json:"lead_ms"` // from the command until the guest runs there
	// Requests are the pages that the destination asked for after the switchover. The
	// stalls are how long all of its processors, and the worst of them, waited for pages.
	Requests       int64 `json:"postcopy_requests,omitempty"`
	StallMS        int64 `json:"stall_ms,omitempty"`
	LongestStallMS int64 `json:"longest_stall_ms,omitempty"`
	// LocalMS is from the command until all memory is the destination's own.
	LocalMS int64 `json:"local_ms,omitempty"`
	Arrived int64 `json:"arrived_bytes,omitempty"` // that came from a pool

	// Pulse is how the guest's work went meanwhile, where that was watched.
	Pulse *pulseRecord `json:"pulse,omitempty"`

	Transferred int64     `json:"transferred_bytes"`
	Normal      int64     `json:"normal_pages"`
	Zero        int64     `json:"zero_pages"`
	Skipped     int64     `json:"skipped_pages"`
	Repeated    int64     `json:"repeated_pages"` // sent once more, as the guest wrote to them
	FreePages   int64     `json:"free_pages"`     // on the guest's free lists just before
	FreeBlocks  int64     `json:"free_blocks"`    // that they make up
	Syncs       int64     `json:"dirty_syncs"`
	SourceCPUMS int64     `json:"source_cpu_ms"` // of QEMU, emulated CPUs included
	Resident    int64     `json:"destination_resident_bytes"`
	HintStatus  string    `json:"hint_status,omitempty"`
	Exchange    *vm.Hints `json:"free_page_hints,omitempty"` // as query-migrate has it
	FloorBytes  int64     `json:"floor_bytes,omitempty"`     // known where free pages were left out
	Verified    uint64    `json:"verified_pages"`
	Mismatched  uint64    `json:"mismatched_pages"`
}

// failed tells whether something went wrong that a reader has to know.
func (r *record) failed() bool { return r.Error != "" || r.Mismatched != 0 }

// setFigures takes over what QEMU says. before is what the guest had free.
func (r *record) setFigures(m *vm.Migration, before memory.Info) {
	r.SetupMS, r.TotalMS, r.DowntimeMS = m.SetupTime, m.TotalTime, m.Downtime
	r.Transferred, r.Normal, r.Zero = m.RAM.Transferred, m.RAM.Normal, m.RAM.Duplicate
	r.Syncs, r.FreePages, r.FreeBlocks = m.RAM.SyncCount, before.Buddy, before.Blocks
	if r.HintStatus = m.HintStatus(); r.HintStatus != "" {
		r.Exchange = m.Hints
		r.Skipped = m.Hints.Skipped
	}
	r.Repeated = max(r.Normal+r.Zero+r.Skipped-m.RAM.Total/memory.PageSize, 0)
	if r.Method.hints() && r.Transport == stream {
		f := m.Floor(before.Buddy)
		r.FloorBytes = f.Bytes()
	}
}
