// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// Migration is what query-migrate says, as far as tests look at it. Times are
// in milliseconds, sizes in bytes unless they say pages.
type Migration struct {
	Status    string `json:"status"`
	ErrorDesc string `json:"error-desc"`
	TotalTime int64  `json:"total-time"`
	SetupTime int64  `json:"setup-time"`
	Downtime  int64  `json:"downtime"`
	RAM       struct {
		Transferred int64 `json:"transferred"`
		Total       int64 `json:"total"`
		Remaining   int64 `json:"remaining"`
		Duplicate   int64 `json:"duplicate"` // zero pages
		Normal      int64 `json:"normal"`    // pages sent with their content
		SyncCount   int64 `json:"dirty-sync-count"`
		Requests    int64 `json:"postcopy-requests"` // pages that the destination asked for
	} `json:"ram"`
	Hints *Hints `json:"free-page-hints"` // nil without the device
}

// Hints is what query-migrate says about free page hints: the
// MigrationFreePageHints of the QEMU series. Times are in microseconds.
type Hints struct {
	Status     string `json:"status"`
	Generation uint64 `json:"generation"`
	Skipped    int64  `json:"skipped"`  // pages
	LeftOut    int64  `json:"left-out"` // pages that are free, but not for a migration to skip
	Ranges     int64  `json:"ranges"`
	Truncated  bool   `json:"truncated"`
	Source     string `json:"source"`        // who knew what is free; "" without an answer
	Exchange   int64  `json:"exchange-time"` // from the question to the last bit cleared
	Arm        int64  `json:"arm-time"`
	Clear      int64  `json:"clear-time"`
	// Phases are the parts of the answer, in order, and Details further figures. Which
	// there are depends on the source.
	Phases  []HintPhase  `json:"phases"`
	Details []HintDetail `json:"details"`
}

// HintPhase is a part of the time that an answer took.
type HintPhase struct {
	Name string `json:"name"`
	Time int64  `json:"time"` // microseconds
}

// HintDetail is a figure whose unit is in its name.
type HintDetail struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// What the guest's driver names, as a source of hints.
const (
	SourceDriver  = "driver"
	PhaseWakeup   = "wakeup"      // from the interrupt to the driver's first sign of life
	PhaseWalk     = "walk"        // the guest's walk through its free memory
	PhaseTransfer = "transfer"    // until the last record was in the backend's hands
	PhaseDecode   = "decode"      // the backend's decoding and sorting
	DetailHoldMax = "hold-max-us" // the longest hold of an allocator lock
	DetailHolds   = "holds"       // how often the guest took one
)

// SourceIntrospect is who knows what is free without the guest, and what it names.
const (
	SourceIntrospect = "introspect"
	PhaseFind        = "find" // the kernel, or that it is still the same
	PhaseScan        = "scan" // the memory map
	PhasePeek        = "peek" // asking which pages were written
	PhaseSieve       = "sieve"
	DetailDropped    = "dropped-blocks"
	DetailRead       = "struct-pages"
)

// Phase returns the time of a phase in microseconds, or 0 where there is none of
// that name.
func (h *Hints) Phase(name string) int64 {
	for _, p := range h.Phases {
		if p.Name == name {
			return p.Time
		}
	}
	return 0
}

// Detail returns a figure, or 0 where there is none of that name.
func (h *Hints) Detail(name string) int64 {
	for _, d := range h.Details {
		if d.Name == name {
			return d.Value
		}
	}
	return 0
}

// HintStatus returns why hints were or were not used: "ok" or one of the other
// names of MigrationFreePageHintStatus, and "" when QEMU says nothing.
func (m *Migration) HintStatus() string {
	if m.Hints == nil {
		return ""
	}
	return m.Hints.Status
}

// PageCost is what a page costs on the wire of a plain migration stream in
// bytes: the page with its 8 byte header (QEMU's migration/ram.c,
// save_page_header).
const PageCost = 4096 + 8

// ZeroPageCost is what a page of zeroes costs: the header and one byte.
const ZeroPageCost = 8 + 1

// Floor is the least that a migration can send. Of the pages that are not free
// that is the content, or a note for one of zeroes. The state of the devices
// comes on top.
type Floor struct {
	UsedPages   int64 `json:"used_pages"` // not free; zero pages are among them
	ZeroPages   int64 `json:"zero_pages"`
	DeviceState int64 `json:"device_state_bytes"`
}

// Bytes returns the sum.
func (f Floor) Bytes() int64 {
	return (f.UsedPages-f.ZeroPages)*PageCost + f.ZeroPages*ZeroPageCost + f.DeviceState
}

// Floor returns the least that a migration without free pages had to send, when
// so many pages were free. The state of the devices is what was sent and is no
// page.
func (m *Migration) Floor(freePages int64) Floor {
	pages := m.RAM.Normal*PageCost + m.RAM.Duplicate*ZeroPageCost
	return Floor{
		UsedPages:   m.RAM.Total/memory.PageSize - freePages,
		ZeroPages:   m.RAM.Duplicate,
		DeviceState: max(m.RAM.Transferred-pages, 0),
	}
}

// Ended tells whether the migration goes on no more.
func (m *Migration) Ended() bool {
	switch m.Status {
	case "completed", "failed", "cancelled":
		return true
	}
	return false
}

// QueryMigrate returns the state of the source's migration.
func (v *VM) QueryMigrate(ctx context.Context) (*Migration, error) {
	var m Migration
	if err := v.Execute(ctx, "query-migrate", nil, &m); err != nil {
		return nil, err
	}
	return &m, nil
}

// StartMigration begins to migrate v to dst. Bandwidth is in bytes per second;
// 0 is as fast as it goes.
func (v *VM) StartMigration(ctx context.Context, dst *VM, bandwidth int64) error {
	t := Transfer{Bandwidth: bandwidth}
	return t.start(ctx, v, dst)
}

// CancelMigration gives the source's migration up, and waits until it is
// cancelled. One that ends otherwise is an error.
func (v *VM) CancelMigration(ctx context.Context) error {
	if err := v.Execute(ctx, "migrate_cancel", nil, nil); err != nil {
		return err
	}
	m, err := v.WaitMigration(ctx, nil)
	if err == nil && m.Status != "cancelled" {
		err = fmt.Errorf("cancel a migration: it %s: %s", m.Status, m.ErrorDesc)
	}
	return err
}

// pollInterval is how often the state of a migration is asked for.
const pollInterval = 20 * time.Millisecond

// WaitMigration waits until the source's migration has ended, in whichever way,
// and returns its figures. progress, unless nil, is called with each state.
func (v *VM) WaitMigration(ctx context.Context, progress func(*Migration)) (*Migration, error) {
	for {
		m, err := v.QueryMigrate(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, v.Diagnosis())
		}
		if progress != nil {
			progress(m)
		}
		if m.Ended() {
			return m, nil
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the migration, which is %s: %w", m.Status, context.Cause(ctx))
		}
	}
}

// Migrate migrates v to dst and waits until the guest runs there. A migration
// that ends otherwise is an error.
func (v *VM) Migrate(ctx context.Context, dst *VM, progress func(*Migration)) (*Migration, error) {
	return v.MigrateBy(ctx, dst, Transfer{}, progress)
}

// Arrive waits until a destination has its guest, which runs if it ran on the
// source.
func (v *VM) Arrive(ctx context.Context) error {
	for {
		status, err := v.Status(ctx)
		if err != nil {
			return fmt.Errorf("wait for the guest to arrive: %w\n%s", err, v.Diagnosis())
		}
		switch status {
		case "running", "paused":
			return nil
		case "inmigrate":
		default:
			return fmt.Errorf("wait for the guest to arrive: QEMU is %s\n%s", status, v.Diagnosis())
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return fmt.Errorf("wait for the guest to arrive: %w", context.Cause(ctx))
		}
	}
}
