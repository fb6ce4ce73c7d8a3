// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"os"
	"strings"
	"testing"
)

// Where the rest would fit into downtime-limit, stock QEMU stops the guest in the middle
// of the first pass. With hints the pass is ended first, and what the guest wrote
// meanwhile is sent, so that little is left for the downtime.
func TestSwitchoverWaitsForTheFirstPass(t *testing.T) {
	for _, tc := range []struct {
		name   string
		hold   bool
		paused bool
		during func(o *ordered)
		most   int // pages with content that are sent while the guest is stopped
	}{
		{name: "off", hold: false, most: filledSize / pageSize},
		{name: "on", hold: true, most: 0},
		{name: "little is written", hold: true, most: 4, during: (*ordered).write},
		{name: "much is written", hold: true, most: 4, during: func(o *ordered) {
			o.write()
			for at := uint64(cold[0].GPA + 2<<20); at < cold[0].GPA+3<<20; at += pageSize {
				o.m.fill(at, pageSize, 0xa5)
				o.written = append(o.written, at)
			}
		}},
		{name: "a guest that writes all the time", hold: true, most: filledSize / pageSize,
			during: (*ordered).writeUntilTheEnd},
		{name: "a guest that is paused meanwhile", hold: true, most: filledSize / pageSize,
			during: func(o *ordered) { o.m.execute("stop", nil) }, paused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, pageSize)
			o.capabilities = []string{"events"}
			o.set("hold-switchover", tc.hold)
			o.begin()
			// So the last 16 MiB would fit.
			o.m.execute("migrate-set-parameters", map[string]any{
				"max-bandwidth": 8 * slowly, "downtime-limit": 2000,
			})
			o.answer(hot, cold)
			if tc.during != nil {
				tc.during(o)
			}
			o.awaitStatus(o.m, "completed")
			o.awaitStatus(o.dst, "completed")
			n := o.sentStopped()
			if n > tc.most || !tc.hold && n == 0 {
				t.Errorf("%d pages were sent while the guest was stopped, want %d at most", n, tc.most)
			}
			if tc.paused {
				o.dst.execute("cont", nil)
			}
			o.requireArrived()
		})
	}
}

// sentStopped returns how many pages with content were sent after the guest was stopped.
func (o *ordered) sentStopped() int {
	o.t.Helper()
	text, err := os.ReadFile(o.trace)
	if err != nil {
		o.t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "migration_thread_low_pending")
	if !ok {
		o.t.Fatal("QEMU's trace does not say when the guest is stopped")
	}
	return strings.Count(after, "ram_save_page ram:")
}

// writeUntilTheEnd writes a part of the memory over and over until the guest is stopped.
func (o *ordered) writeUntilTheEnd() {
	o.t.Helper()
	o.m.await("the migration ends", func() bool {
		for range 10 {
			o.m.fill(common, 1<<20, 0x5a)
		}
		figures, err := o.m.QueryMigrate(o.m.ctx)
		return err == nil && figures.Ended()
	})
}
