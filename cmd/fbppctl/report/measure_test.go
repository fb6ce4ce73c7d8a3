// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// fakeQEMU is a QEMU whose migrations complete when they have sent a little, or never.
type fakeQEMU struct {
	state     string // of the VM
	migration string // its status
	device    bool
	hints     bool
	mute      bool   // it does not say whether hints are on
	endless   bool   // migrations never end
	bandwidth uint64 // what is set
	postcopy  bool   // what is set
	seen      []bool // of each migration, whether it had hints
	lost      bool   // it does not answer any more
	onQuery   func() // called at each query of a migration that goes on
}

// newFakeQEMU returns one whose VM runs.
func newFakeQEMU() *fakeQEMU {
	return &fakeQEMU{state: "running", device: true, hints: true, bandwidth: 7, postcopy: true}
}

// Execute implements Monitor.
func (q *fakeQEMU) Execute(ctx context.Context, command string, args, result any) error {
	if q.lost || ctx.Err() != nil {
		return errors.Join(io.ErrUnexpectedEOF, ctx.Err())
	}
	text, _ := json.Marshal(args)
	answer := "{}"
	switch command {
	case "query-status":
		answer = `{"status": "` + q.state + `"}`
	case "query-migrate":
		if q.migration == "active" && q.onQuery != nil {
			q.onQuery()
		}
		if q.migration == "active" && !q.endless {
			q.migration, q.state = "completed", "postmigrate"
		}
		if q.migration != "" {
			answer = `{"status": "` + q.migration + `", "total-time": 5,
				"ram": {"transferred": 9, "page-size": 4096},
				"free-page-hints": {"status": "ok", "skipped": 2}}`
		}
	case "qom-list":
		answer = "[]"
		if q.device && strings.Contains(string(text), `"/machine/peripheral"`) {
			answer = `[{"name": "x", "type": "child<vhost-user-fbpp-pci>"}]`
		}
	case "qom-get":
		if q.mute {
			return errors.New("no such property")
		}
		answer = "true"
	case "qom-set":
		q.hints = strings.Contains(string(text), `"value":true`)
	case "query-migrate-capabilities":
		answer = `[{"capability": "postcopy-ram", "state": true},
			{"capability": "xbzrle", "state": true}]`
	case "migrate-set-capabilities":
		if strings.Contains(string(text), "xbzrle") {
			return errors.New("xbzrle needs no change")
		}
		q.postcopy = strings.Contains(string(text), `"state":true`)
	case "query-migrate-parameters":
		answer = `{"max-bandwidth": 7, "tls-creds": "x"}`
	case "migrate-set-parameters":
		var p parameters
		_ = json.Unmarshal(text, &p)
		q.bandwidth = p.Bandwidth
	case "migrate":
		return q.migrate(args.(map[string]any)["uri"].(string))
	case "migrate_cancel":
		q.migration = "cancelled"
	case "cont":
		q.state = "running"
	default:
		return errors.New("no such command: " + command)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal([]byte(answer), result)
}

func (q *fakeQEMU) migrate(uri string) error {
	if q.state != "running" || q.postcopy {
		return errors.New("the guest cannot be migrated so")
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(uri, "tcp:"))
	if err != nil {
		return err
	}
	defer conn.Close()
	q.seen, q.migration = append(q.seen, q.hints), "active"
	_, err = conn.Write(make([]byte, 4<<20))
	return err
}

// requireAsBefore fails unless the guest runs, and all is set as it was.
func (q *fakeQEMU) requireAsBefore(t *testing.T) {
	t.Helper()
	if q.state != "running" || q.migration == "active" || q.bandwidth != 7 || !q.postcopy || !q.hints {
		t.Errorf("it was left as %+v", q)
	}
}

func plan() Plan {
	return Plan{
		Rounds: 2, Gbit: []float64{0, 10}, Limit: time.Minute,
		Ready: func(context.Context) error { return nil }, Progress: func(string) {},
	}
}

func TestMeasureLeavesTheGuestAsItWas(t *testing.T) {
	q := newFakeQEMU()
	all, err := Measure(t.Context(), q, plan())
	if err != nil || len(all) != 8 {
		t.Fatalf("measured %d: %v", len(all), err)
	}
	want := Migration{Method: FBPP, Gbit: 10, Result: "completed", Hints: "ok", SkippedBytes: 8192,
		TransferredBytes: 9, TotalMS: 5}
	if all[3] != want || all[2].Method != Stock || q.seen[2] || !q.seen[3] {
		t.Errorf("got %+v, and hints at %v", all, q.seen)
	}
	q.requireAsBefore(t)
}

func TestMeasureGivesUp(t *testing.T) {
	for name, change := range map[string]func(q *fakeQEMU, p *Plan, cancel func()){
		"when it is told to": func(q *fakeQEMU, _ *Plan, cancel func()) {
			q.endless, q.onQuery = true, cancel
		},
		"when the guest does not get ready": func(_ *fakeQEMU, p *Plan, _ func()) {
			p.Ready = func(context.Context) error { return errors.New("no driver") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, p := newFakeQEMU(), plan()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			change(q, &p, cancel)
			if _, err := Measure(ctx, q, p); err == nil {
				t.Error("it went on")
			}
			q.requireAsBefore(t)
		})
	}
}

func TestMeasureCancelsWhatDoesNotEnd(t *testing.T) {
	q, p := newFakeQEMU(), plan()
	q.endless, p.Limit, p.Rounds, p.Gbit = true, time.Millisecond, 1, []float64{0}
	all, err := Measure(t.Context(), q, p)
	if err != nil || len(all) != 2 || all[0].Result != "too-slow" {
		t.Errorf("got %+v, %v", all, err)
	}
	q.requireAsBefore(t)
}

func TestMeasureSaysThatTheGuestMayStandStill(t *testing.T) {
	q := newFakeQEMU()
	q.endless, q.onQuery = true, func() { q.lost = true }
	_, err := Measure(t.Context(), q, plan())
	if err == nil || !strings.Contains(err.Error(), `"cont"`) {
		t.Errorf("got %v", err)
	}
}

func TestMeasureRefuses(t *testing.T) {
	for name, change := range map[string]func(q *fakeQEMU){
		"a VM that is paused":       func(q *fakeQEMU) { q.state = "paused" },
		"a VM that is migrated":     func(q *fakeQEMU) { q.migration, q.endless = "active", true },
		"a VM without the device":   func(q *fakeQEMU) { q.device = false },
		"a VM that hides its hints": func(q *fakeQEMU) { q.mute = true },
	} {
		t.Run(name, func(t *testing.T) {
			q := newFakeQEMU()
			change(q)
			before := *q
			if _, err := Measure(t.Context(), q, plan()); err == nil {
				t.Error("it was measured")
			}
			if q.state != before.state || q.migration != before.migration || !q.hints ||
				len(q.seen) > 0 {
				t.Errorf("it was changed to %+v", q)
			}
		})
	}
}
