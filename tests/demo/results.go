// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// method is how a migration treats free memory.
type method string

// The methods.
const (
	stock method = "stock" // hints switched off: what QEMU does by itself
	fbpp  method = "fbpp"  // hints switched on
)

// title describes the method in a line.
func (m method) title() string {
	if m == fbpp {
		return "Hints on: the guest says what is free, and QEMU leaves it out."
	}
	return "Hints off: QEMU as it is."
}

// hints tells whether hints are used.
func (m method) hints() string {
	if m == fbpp {
		return "on"
	}
	return "off"
}

// results is the demo's outcome, and what build/demo.json holds.
type results struct {
	Floor      vm.Floor  `json:"floor"`
	FloorBytes int64     `json:"floor_bytes"` // the least that the fbpp run could send
	AboveFloor float64   `json:"above_floor"` // what it sent beyond that, as a share of the floor
	Runs       []outcome `json:"runs"`
	Integrity  integrity `json:"integrity"` // of both guests together

	plan  plan
	accel string
}

// outcome is one migration.
type outcome struct {
	Method      method    `json:"method"`
	Transferred int64     `json:"transferred_bytes"`
	SetupMS     int64     `json:"setup_ms"`
	TotalMS     int64     `json:"total_ms"`
	DowntimeMS  int64     `json:"downtime_ms"`
	Skipped     int64     `json:"skipped_pages"`
	Repeated    int64     `json:"repeated_pages"` // sent once more, as the guest wrote to them
	HintStatus  string    `json:"hint_status"`
	Exchange    *exchange `json:"exchange_us,omitempty"` // nil when nothing was asked
	Integrity   integrity `json:"integrity"`

	release string
	free    int64 // pages that the guest had free just before
	floor   vm.Floor
}

// exchange is the time from the question to the last skipped page, and its parts, in
// microseconds.
type exchange struct {
	Arm     int64          `json:"arm"`    // before the question
	Phases  []vm.HintPhase `json:"phases"` // of the answer
	Clear   int64          `json:"clear"`
	Wait    int64          `json:"wait"`  // the rest: until fbppd and QEMU's thread got the CPU
	Total   int64          `json:"total"` // from the question on
	HoldMax int64          `json:"hold_max"`
}

// integrity is what the guest found on the destination.
type integrity struct {
	CountBefore   uint64 `json:"count_before"`
	CountAfter    uint64 `json:"count_after"`
	VerifiedPages uint64 `json:"verified_pages"`
	Mismatches    uint64 `json:"mismatches"`
}

func (i *integrity) add(j integrity) {
	i.CountBefore += j.CountBefore
	i.CountAfter += j.CountAfter
	i.VerifiedPages += j.VerifiedPages
	i.Mismatches += j.Mismatches
}

// newOutcome turns the figures of a migration into a result. free is what the guest
// had free just before.
func newOutcome(
	m method, release string, f *vm.Migration, free memory.Info, i *integrity,
) *outcome {
	r := &outcome{
		Method:      m,
		Transferred: f.RAM.Transferred,
		SetupMS:     f.SetupTime,
		TotalMS:     f.TotalTime,
		DowntimeMS:  f.Downtime,
		HintStatus:  f.HintStatus(),
		Integrity:   *i,
		release:     release,
		free:        free.Buddy,
		floor:       f.Floor(free.Buddy),
	}
	r.Repeated = f.RAM.Normal + f.RAM.Duplicate - f.RAM.Total/memory.PageSize
	if h := f.Hints; h != nil && h.Generation != 0 {
		r.Skipped = h.Skipped
		r.Repeated += h.Skipped
		x := &exchange{
			Arm: h.Arm, Phases: h.Phases, Clear: h.Clear, Total: h.Exchange,
			HoldMax: h.Detail(vm.DetailHoldMax),
			Wait:    h.Exchange - h.Clear,
		}
		for _, p := range h.Phases {
			x.Wait -= p.Time
		}
		r.Exchange = x
	}
	return r
}

// conclude computes the figures that compare both runs.
func (r *results) conclude() {
	for _, run := range r.Runs {
		r.Integrity.add(run.Integrity)
	}
	on := r.Runs[len(r.Runs)-1]
	r.Floor, r.FloorBytes = on.floor, on.floor.Bytes()
	r.AboveFloor = float64(on.Transferred)/float64(r.FloorBytes) - 1
}

// Targets of the demo.
const (
	floorMargin   = 0.05
	exchangeLimit = 25_000 // µs: what the exchange added to the setup in the published work
)

// verdict returns an error if the demo missed a target.
func (r *results) verdict() error {
	var errs []error
	for _, run := range r.Runs {
		if run.Integrity.Mismatches != 0 {
			errs = append(errs, fmt.Errorf("%s: the guest found %d damaged pages",
				run.Method, run.Integrity.Mismatches))
		}
	}
	on := r.Runs[len(r.Runs)-1]
	switch {
	case on.HintStatus != "ok":
		errs = append(errs, fmt.Errorf("hints ended with status %q", on.HintStatus))
	case r.AboveFloor > floorMargin:
		errs = append(errs, fmt.Errorf("sent %.1f %% more than the floor", r.AboveFloor*100))
	}
	return errors.Join(errs...)
}

// write stores the results as JSON.
func (r *results) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}
