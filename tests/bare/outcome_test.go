// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// ended is what QEMU's event says of a migration.
type ended struct {
	ID          string `json:"id"`
	Path        string `json:"qom-path"`
	Result      string `json:"result"`
	Status      string `json:"status"`
	Skipped     uint64 `json:"skipped-bytes"`
	LeftOut     uint64 `json:"left-out-bytes"`
	Transferred uint64 `json:"transferred"`
	Ordered     bool   `json:"ordered"`
	Hybrid      string `json:"hybrid"`
	TotalTime   uint64 `json:"total-time"`
	Downtime    uint64 `json:"downtime"`
}

// outcomes returns what QEMU's events say of the migrations that have ended.
func (m *machine) outcomes() (all []ended) {
	m.t.Helper()
	if _, err := m.Status(m.ctx); err != nil { // reads the events before its reply
		m.t.Fatal(err)
	}
	for _, data := range m.Events("MIGRATION_FREE_PAGE_HINTS") {
		var e ended
		if err := json.Unmarshal(data, &e); err != nil {
			m.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// Each migration that ends, in whichever way, makes an event, a line in the log and an
// outcome in the window, which say the same. So does one that has asked nothing.
func TestOutcomes(t *testing.T) {
	skipped := ended{Status: "ok", Skipped: free.Length, Ordered: true}
	for _, tc := range []struct {
		name   string
		before func(o *ordered)
		run    func(o *ordered)
		want   ended
		said   string
		hybrid uint32 // in the window
	}{
		{"hybrid", (*ordered).makeHybrid, func(o *ordered) {
			o.answer(hot, cold)
			o.switches()
			o.end()
		}, ended{Result: "completed", Hybrid: "switched"},
			" MiB sent in order, hybrid switched, downtime ", 2},
		{"precopy", nil, func(o *ordered) {
			o.answer(hot, cold)
			o.end()
		}, ended{Result: "completed"}, " MiB sent in order, downtime ", 0},
		{"cancelled", nil, func(o *ordered) {
			o.answer(hot, cold)
			if err := o.m.CancelMigration(o.m.ctx); err != nil {
				o.t.Fatal(err)
			}
			o.awaitStatus(o.m, "cancelled")
		}, ended{Result: "cancelled"}, " MiB sent in order, downtime ", 0},
		{"a network that fails", nil, func(o *ordered) {
			o.answer(hot, cold)
			o.link.cut()
			o.awaitStatus(o.m, "failed")
		}, ended{Result: "failed"}, " MiB sent in order, downtime ", 0},
		{"hints are off", func(o *ordered) { o.set("hints", false) }, (*ordered).end,
			ended{Result: "completed", Status: "disabled"}, " MiB sent, downtime ", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, pageSize)
			if tc.before != nil {
				tc.before(o)
			}
			o.begin()
			tc.run(o)
			want := skipped
			want.Result, want.Hybrid = tc.want.Result, tc.want.Hybrid
			if tc.want.Status != "" {
				want = tc.want
			}
			o.m.await("an event", func() bool { return len(o.m.outcomes()) > 0 })
			all := o.m.outcomes()
			got := all[len(all)-1]
			o.requireTold(got, tc.hybrid)
			o.m.awaitSaid("migration: "+want.Result+" after", 1) // it comes through a pipe
			said := regexp.MustCompile("migration: " + want.Result + " after [0-9]+ ms: hints " +
				want.Status + ", [0-9]+ MiB skipped, [0-9]+" + tc.said + "[0-9]+ ms")
			if n := len(said.FindAllString(o.m.Messages(), -1)); n != 1 {
				t.Errorf("%d lines with %v", n, said)
			}
			if len(all) != 1 || got.Path != "/machine/peripheral/"+got.ID || got.Transferred == 0 {
				t.Errorf("%d events, of which the last is %+v", len(all), got)
			}
			got.ID, got.Path, got.Transferred, got.TotalTime, got.Downtime = "", "", 0, 0, 0
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// requireTold checks that the window says what an event says.
func (o *ordered) requireTold(e ended, hybrid uint32) {
	o.t.Helper()
	w := o.here.window.Load()
	order := uint32(protocol.OrderNone)
	if e.Ordered {
		order = uint32(protocol.OrderUsed)
	}
	got := []any{w.get64(protocol.WindowOutcomeNumberOffset),
		protocol.MigrationResult(w.get32(protocol.WindowOutcomeMigrationOffset)).String(),
		protocol.HintStatus(w.get32(protocol.WindowOutcomeHintsOffset)).String(),
		w.get64(protocol.WindowOutcomeSkippedOffset),
		w.get64(protocol.WindowOutcomeTransferredOffset),
		w.get64(protocol.WindowOutcomeTotalMSOffset), w.get64(protocol.WindowOutcomeDowntimeMSOffset),
		w.get32(protocol.WindowOutcomeOrderOffset), w.get32(protocol.WindowOutcomeHybridOffset)}
	want := []any{uint64(1), e.Result, e.Status, e.Skipped, e.Transferred, e.TotalTime, e.Downtime,
		order, hybrid}
	if diff := cmp.Diff(want, got); diff != "" {
		o.t.Errorf("the window: %s", diff)
	}
}

// A question says whether an order is of use: where the migration may switch to postcopy. See
// TestArrivalOfWhatIsWanted for memory that arrives.
func TestAskSaysWhetherAnOrderIsOfUse(t *testing.T) {
	for _, postcopy := range []bool{false, true} {
		o := newOrdered(t, pageSize)
		if !postcopy {
			o.capabilities = []string{"multifd"}
		}
		o.begin()
		w := o.m.awaitAsked(o.here)
		flags := w.get32(protocol.WindowAskFlagsOffset)
		if got := flags&protocol.WindowAskOrder != 0; got != postcopy {
			t.Errorf("with postcopy %v the question's flags are %#x", postcopy, flags)
		}
		w.publishInOrder([]freeset.Range{free}, hot, cold)
		o.end()
		o.requireArrived()
	}
}
