// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// Migration is the part of query-migrate that tests use. Times are in milliseconds,
// and sizes in bytes unless a comment says pages.
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
		// DowntimeBytes were sent while the guest stood still.
		DowntimeBytes int64 `json:"downtime-bytes"`
	} `json:"ram"`
	Hints *Hints `json:"free-page-hints"` // nil without the device
	Load  *Load  `json:"fast-snapshot-load"`

	// Blocktime is how long all processors of a destination stood still at once to wait for
	// pages, and VCPUBlocktime how long each did. They are known after postcopy, with the
	// capability postcopy-blocktime.
	Blocktime     int64   `json:"postcopy-blocktime"`
	VCPUBlocktime []int64 `json:"postcopy-vcpu-blocktime"`
}

// Load is what query-migrate says at a destination whose RAM comes from a file while the
// guest runs: FastSnapshotLoadInfo of the QEMU series. Sizes are in bytes.
type Load struct {
	Total      int64 `json:"total"`     // to be loaded
	Remaining  int64 `json:"remaining"` // of that
	Skipped    int64 `json:"skipped"`   // not loaded, as the guest had it free
	Read       int64 `json:"read"`
	Faults     int64 `json:"faults"`      // pages loaded as somebody waited for them
	ZeroFaults int64 `json:"zero-faults"` // those of them that are not in the file
	Time       int64 `json:"time"`        // milliseconds
}

// Hints is what query-migrate says about free page hints: the
// MigrationFreePageHints of the QEMU series. Times are in microseconds.
type Hints struct {
	Status     string `json:"status"`
	Generation uint64 `json:"generation"`
	Skipped    int64  `json:"skipped"`  // pages
	LeftOut    int64  `json:"left-out"` // free pages that a migration must not skip
	Ranges     int64  `json:"ranges"`
	Truncated  bool   `json:"truncated"`
	Hot        *int64 `json:"hot"`           // bytes to send first; nil without an order
	Cold       *int64 `json:"cold"`          // bytes to send last; nil without an order
	Hybrid     string `json:"hybrid"`        // what came of a hybrid migration; "" if none is wanted
	Source     string `json:"source"`        // where the answer is from; "" without an answer
	Exchange   int64  `json:"exchange-time"` // from the question to the last bit cleared
	Arm        int64  `json:"arm-time"`
	Clear      int64  `json:"clear-time"`
	// Phases are the parts of the answer's time, in order. Details are further
	// figures. Their names depend on the source.
	Phases  []HintPhase  `json:"phases"`
	Details []HintDetail `json:"details"`
}

// HintPhase is a named part of the time that an answer took.
type HintPhase struct {
	Name string `json:"name"`
	Time int64  `json:"time"` // microseconds
}

// HintDetail is a named figure. A name that ends in a unit gives the unit.
type HintDetail struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// The guest's driver as a source of hints, and the names of its details. Those of phases
// are in package source.
const (
	SourceDriver  = "driver"
	DetailHoldMax = "hold-max-us" // the longest hold of an allocator lock
	DetailHolds   = "holds"       // how often the guest took an allocator lock
)

// Introspection as a source of hints, and the names of its details.
const (
	SourceIntrospect = "introspect"
	DetailDropped    = "dropped-blocks"
	DetailRead       = "struct-pages"
)

// Phase returns the time of a phase in microseconds, or 0 if there is no such phase.
func (h *Hints) Phase(name string) int64 {
	for _, p := range h.Phases {
		if p.Name == name {
			return p.Time
		}
	}
	return 0
}

// Detail returns a figure, or 0 if there is no such detail.
func (h *Hints) Detail(name string) int64 {
	for _, d := range h.Details {
		if d.Name == name {
			return d.Value
		}
	}
	return 0
}

// HintStatus returns the status of hints: "ok", another name of
// MigrationFreePageHintStatus, or "" if query-migrate has no hints.
func (m *Migration) HintStatus() string {
	if m.Hints == nil {
		return ""
	}
	return m.Hints.Status
}

// PageCost is the size of a page in a plain migration stream, in bytes: the page and
// its 8-byte header (save_page_header in QEMU's migration/ram.c).
const PageCost = 4096 + 8

// ZeroPageCost is the size of a zero page in the stream, in bytes: the header and one
// byte.
const ZeroPageCost = 8 + 1

// Floor is the least that a migration can send: each page that is not free, once,
// and the state of the devices. A zero page is sent as [ZeroPageCost] bytes.
type Floor struct {
	UsedPages   int64 `json:"used_pages"` // pages that are not free, with the zero pages
	ZeroPages   int64 `json:"zero_pages"`
	DeviceState int64 `json:"device_state_bytes"`
}

// Bytes returns the sum in bytes.
func (f Floor) Bytes() int64 {
	return (f.UsedPages-f.ZeroPages)*PageCost + f.ZeroPages*ZeroPageCost + f.DeviceState
}

// Floor returns the least that this migration could have sent, given the number of
// free pages. It takes all bytes that were not sent as pages for device state.
func (m *Migration) Floor(freePages int64) Floor {
	pages := m.RAM.Normal*PageCost + m.RAM.Duplicate*ZeroPageCost
	return Floor{
		UsedPages:   m.RAM.Total/memory.PageSize - freePages,
		ZeroPages:   m.RAM.Duplicate,
		DeviceState: max(m.RAM.Transferred-pages, 0),
	}
}

// Ended tells whether the migration has completed, failed or been cancelled.
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

// StartMigration begins to migrate v to dst, and does not wait for the end. Bandwidth
// is in bytes per second; 0 means no limit.
func (v *VM) StartMigration(ctx context.Context, dst *VM, bandwidth int64) error {
	t := Transfer{Bandwidth: bandwidth}
	return t.start(ctx, v, dst)
}

// CancelMigration cancels the source's migration, and waits until it has ended. It is
// an error if the migration ends otherwise.
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

// pollInterval is the time between two queries of a migration's state.
const pollInterval = 20 * time.Millisecond

// WaitMigration waits until the source's migration has ended, and returns its
// figures. A failed or cancelled migration is no error. progress, unless nil, is
// called with each queried state.
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
			return m, v.settle(ctx)
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the migration, which is %s: %w", m.Status, context.Cause(ctx))
		}
	}
}

// settle waits until a source whose migration has ended can be told to go on. QEMU says before
// that the migration has completed.
func (v *VM) settle(ctx context.Context) error {
	for {
		status, err := v.Status(ctx)
		if err != nil || status != "finish-migrate" {
			return err
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of the migration: %w", context.Cause(ctx))
		}
	}
}

// Migrate is [VM.MigrateBy] with the zero Transfer.
func (v *VM) Migrate(ctx context.Context, dst *VM, progress func(*Migration)) (*Migration, error) {
	return v.MigrateBy(ctx, dst, Transfer{}, progress)
}

// Arrive waits until the guest has arrived at this destination. The guest then runs,
// or is paused if it was paused at the source.
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
