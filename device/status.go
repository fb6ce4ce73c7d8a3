// SPDX-License-Identifier: Apache-2.0

package device

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/history"
	"github.com/fbpp-project/fbpp/device/observer"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/device/window"
)

// Status is a snapshot of the device for operators.
type Status struct {
	Enabled   bool `json:"enabled"`
	Connected bool `json:"frontend_connected"`
	Asking    bool `json:"asking"` // a request is open
	// DriverState is "none" without a driver in the guest, "starting" when the
	// event queue runs but no HELLO has come, then "ready" or "refuses".
	DriverState string           `json:"driver_state"`
	Driver      *driver.Identity `json:"driver,omitempty"`
	// Session is there if the driver takes programs.
	Session *driver.Session `json:"program_session,omitempty"`
	// Programs are those that were pushed, and others that the guest has named.
	Programs []driver.Program `json:"programs,omitempty"`
	// WorkingSet is the last sample of the driver's session.
	WorkingSet *WorkingSet `json:"working_set,omitempty"`
	// Cache is what becomes of cold page cache. Ordered says that the frontend takes
	// an order, without which CacheLast has no effect.
	Cache   CachePolicy `json:"cache"`
	Ordered bool        `json:"frontend_orders"`
	// Hot is what counts as hot in an order. It is empty with an older fbppd.
	Hot HotPolicy `json:"hot,omitempty"`
	// CacheDrop is nil with another policy than CacheDrop.
	CacheDrop *CacheDropping `json:"cache_drop,omitempty"`
	// Sources are asked in this order.
	Sources []string `json:"sources"`
	// Kernel is what introspection knows of the guest's kernel. It is nil where
	// the policy does not introspect.
	Kernel *observer.Status `json:"kernel,omitempty"`
	// Last is the request that ended last, with what the device reported.
	// Migration is the newest migration's outcome as QEMU tells it, with what QEMU
	// skipped, also for a migration that made no request. It stays nil with a
	// frontend that does not tell outcomes, as with version 1 of the window.
	Last      *Exchange  `json:"last,omitempty"`
	Migration *Migration `json:"migration,omitempty"`
	// Requests counts the requests that ended, by status.
	Requests map[string]uint64 `json:"requests"`
}

// Exchange describes a request that ended.
type Exchange struct {
	Ended     time.Time `json:"ended"`
	Status    string    `json:"status"`
	Why       string    `json:"why,omitempty"`
	Source    string    `json:"source,omitempty"` // name of the source that answered
	Records   uint64    `json:"records"`          // source.Findings.Items
	Ranges    int       `json:"ranges"`
	FreeBytes uint64    `json:"free_bytes"`
	Truncated bool      `json:"truncated"`
	// HotBytes and ColdBytes are what was reported to be sent first and last, as
	// OrderSource knew.
	HotBytes    uint64 `json:"hot_bytes"`
	ColdBytes   uint64 `json:"cold_bytes"`
	OrderSource string `json:"order_source,omitempty"`
	// DroppedBytes is the cache that the guest says it dropped for the request.
	DroppedBytes uint64          `json:"dropped_bytes"`
	Phases       []Phase         `json:"phases,omitempty"`
	Details      []source.Detail `json:"details,omitempty"`
}

// Phase is a named part of an exchange. Phases follow one another in time.
type Phase struct {
	Name         string `json:"name"`
	Microseconds uint64 `json:"us"`
}

// Phase returns the time of the phase of that name, or 0.
func (x *Exchange) Phase(name string) time.Duration {
	for _, p := range x.Phases {
		if p.Name == name {
			return time.Duration(p.Microseconds) * time.Microsecond
		}
	}
	return 0
}

// Detail returns the detail of that name, or 0.
func (x *Exchange) Detail(name string) uint64 {
	for _, d := range x.Details {
		if d.Name == name {
			return d.Value
		}
	}
	return 0
}

// Migration describes a migration that ended, as QEMU tells it.
type Migration = history.Migration

// Status returns the device's state now.
func (d *Device) Status() Status {
	identity, started := d.driver.Identity(), d.driver.Started()
	programs, session := d.driver.Programs(), d.driver.Session()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{
		Enabled:     d.enabled,
		Connected:   d.backend != nil,
		Asking:      d.open != nil,
		Cache:       d.cache,
		Hot:         d.hot,
		CacheDrop:   d.dropping(identity),
		Ordered:     d.window != nil && d.window.CanOrder(),
		DriverState: driverState(identity, started),
		Driver:      identity,
		Programs:    programs,
		Session:     session,
		WorkingSet:  workingSet(d.driver.WorkingSet()),
		Last:        d.lastDone,
		Migration:   d.lastEnd,
		Requests:    make(map[string]uint64, len(d.totals)),
	}
	for _, source := range d.sources {
		s.Sources = append(s.Sources, source.Name())
	}
	// Who looks for the kernel has a word for why there is none.
	if d.cache == CacheLast || d.hot == HotKernel ||
		slices.Contains(d.sources, source.Source(d.observer)) {
		kernel := d.observer.Status()
		s.Kernel = &kernel
	}
	for i, n := range d.totals {
		s.Requests[protocol.AnswerStatus(i).String()] = n
	}
	return s
}

func driverState(identity *driver.Identity, started bool) string {
	switch {
	case identity != nil && identity.Refuses():
		return "refuses"
	case identity != nil:
		return "ready"
	case started:
		return "starting"
	}
	return "none"
}

// History returns the outcomes of the newest migrations, the newest last.
func (d *Device) History() []Migration { return d.history.Newest() }

// Changed returns a channel that is closed at the next change of the status. Call
// it before Status, or a change between the two calls is missed.
func (d *Device) Changed() <-chan struct{} { return d.watchers.wait() }

// record keeps and logs how a request ended. d.mu is held.
func (d *Device) record(x *request, a window.Answer, f *source.Findings, why string) {
	done := &Exchange{
		Ended:     time.Now(),
		Status:    a.Status.String(),
		Why:       why,
		Source:    a.Source,
		Records:   f.Items,
		Ranges:    a.Ranges,
		FreeBytes: a.Bytes,
		Truncated: a.Truncated,
		Details:   a.Details,
		HotBytes:  a.Hot.Bytes,
		ColdBytes: a.Cold.Bytes,

		DroppedBytes: f.Dropped,
	}
	d.dropped += f.Dropped
	if f.Order != nil {
		done.OrderSource = f.Order.From
	}
	d.lastDone = done
	d.totals[a.Status]++
	defer d.watchers.wake()
	if a.Status != protocol.AnswerOK {
		d.lg.Warn("no free memory reported, the migration sends all of it",
			zap.Stringer("status", a.Status), zap.String("why", why))
		return
	}
	fields := []zap.Field{zap.String("source", a.Source), zap.Uint64("records", f.Items),
		zap.Int("ranges", a.Ranges), zap.Uint64("bytes", a.Bytes), zap.Bool("truncated", a.Truncated),
		zap.Uint64("hot_bytes", a.Hot.Bytes), zap.Uint64("cold_bytes", a.Cold.Bytes),
		zap.Uint64("dropped_bytes", f.Dropped),
		zap.Int64("exchange_us", time.Since(x.begun).Microseconds())}
	for _, p := range a.Phases {
		us := uint64(max(p.Time.Microseconds(), 0))
		done.Phases = append(done.Phases, Phase{Name: p.Name, Microseconds: us})
		fields = append(fields, zap.Uint64(p.Name+"_us", us))
	}
	for _, detail := range a.Details {
		fields = append(fields, zap.Uint64(detail.Name, detail.Value))
	}
	d.lg.Info("free memory reported", fields...)
}

// told records an outcome that the frontend wrote, once. d.mu is held.
func (d *Device) told(o window.Outcome) {
	if o.Number == d.lastTold {
		return
	}
	d.lastTold = o.Number
	end := Migration{
		Ended:            time.Now(),
		Result:           o.Result.String(),
		Hints:            o.Hints.String(),
		SkippedBytes:     o.Skipped,
		TransferredBytes: o.Transferred,
		TotalMS:          o.TotalMS,
		DowntimeMS:       o.DowntimeMS,
		Cache:            string(d.cache),
		Order:            o.Order.String(),
		Hybrid:           o.Hybrid.String(),
		DroppedBytes:     d.dropped,
	}
	d.dropped = 0
	d.lastEnd = &end
	d.history.Add(end)
	d.lg.Info("migration ended", zap.Stringer("result", o.Result), zap.Stringer("hints", o.Hints),
		zap.Uint64("skipped_bytes", o.Skipped), zap.Uint64("transferred_bytes", o.Transferred),
		zap.Uint64("total_ms", o.TotalMS), zap.Uint64("downtime_ms", o.DowntimeMS),
		zap.Stringer("order", o.Order), zap.Stringer("hybrid", o.Hybrid))
	d.watchers.wake()
}
