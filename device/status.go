// SPDX-License-Identifier: Apache-2.0

package device

import (
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
)

// Status is a snapshot of the device for operators.
type Status struct {
	Enabled   bool `json:"enabled"`
	Connected bool `json:"frontend_connected"`
	Asking    bool `json:"asking"` // a request is open

	// DriverState is "none", "ready" or "refuses".
	DriverState string  `json:"driver_state"`
	Driver      *Driver `json:"driver,omitempty"`

	Last *Exchange `json:"last,omitempty"`
	// Requests counts the requests that ended, by status.
	Requests map[string]uint64 `json:"requests"`
}

// Exchange describes a request that ended.
type Exchange struct {
	Ended     time.Time    `json:"ended"`
	Status    string       `json:"status"`
	Why       string       `json:"why,omitempty"`
	Records   uint64       `json:"records"`
	Ranges    int          `json:"ranges"`
	FreeBytes uint64       `json:"free_bytes"`
	Truncated bool         `json:"truncated"`
	Times     window.Times `json:"times"`
}

// Status returns the device's state now.
func (d *Device) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{
		Enabled:     d.config.Flags&protocol.ConfigEnabled != 0,
		Connected:   d.backend != nil,
		Asking:      d.open != nil,
		DriverState: "none",
		Driver:      d.driver,
		Last:        d.lastDone,
		Requests:    make(map[string]uint64, len(d.totals)),
	}
	if d.driver != nil {
		s.DriverState = "ready"
		if d.driver.refuses() {
			s.DriverState = "refuses"
		}
	}
	for i, n := range d.totals {
		s.Requests[window.Status(i).String()] = n
	}
	return s
}

// Changed returns a channel that is closed at the next change of the status.
// To miss none, call it before Status.
func (d *Device) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// broadcast wakes those who watch. d.mu is held.
func (d *Device) broadcast() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// record keeps and logs how a request ended. d.mu is held.
func (d *Device) record(x *exchange, a window.Answer, why string) {
	d.lastDone = &Exchange{
		Ended:     time.Now(),
		Status:    a.Status.String(),
		Why:       why,
		Records:   x.records,
		Ranges:    a.Ranges,
		FreeBytes: a.Bytes,
		Truncated: a.Truncated,
		Times:     a.Times,
	}
	d.totals[a.Status]++
	if a.Status != window.StatusOK {
		d.lg.Warn("no free memory reported, the migration sends all of it",
			zap.Stringer("status", a.Status), zap.String("why", why))
		return
	}
	d.lg.Info("free memory reported", zap.Uint64("records", x.records), zap.Int("ranges", a.Ranges),
		zap.Uint64("bytes", a.Bytes), zap.Bool("truncated", a.Truncated),
		zap.Uint32("wakeup_us", a.Times.Wakeup), zap.Uint32("walk_us", a.Times.Walk),
		zap.Uint32("transfer_us", a.Times.Transfer), zap.Uint32("decode_us", a.Times.Decode),
		zap.Uint32("hold_max_us", a.Times.HoldMax), zap.Uint32("holds", a.Times.Holds))
}
