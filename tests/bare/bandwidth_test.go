// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What is asked for goes beyond the bandwidth that postcopy may use. In stock QEMU it waits until
// there is some again, and the migration thread spins meanwhile. With an order the least that
// comes with a request, 64 KiB around it, does not wait either.
func TestRequestsDoNotWaitForBandwidth(t *testing.T) {
	const asked, apart = 12, 512 << 10
	for name, order := range map[string]bool{"without an order": false, "with an order": true} {
		t.Run(name, func(t *testing.T) {
			o := newOrdered(t, pageSize)
			o.begin()
			o.m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": pageSize})
			if order {
				o.answer(hot, cold)
			} else {
				o.answer(nil, nil)
			}
			o.m.execute("trace-event-set-state", map[string]any{
				"name": "migration_rate_limit_post", "enable": true,
			})
			o.switchOver()
			read := func(at uint64) {
				t.Helper()
				if got := o.dst.do("read %#x 1", at); got != "0x5a" {
					t.Errorf("page %#x begins with %s", at, got)
				}
			}
			const from = filled + 16<<20 // behind what is free
			before := o.requests()
			for i := range uint64(asked) {
				read(from + i*apart)
			}
			if n := o.requests() - before; n < asked {
				t.Fatalf("%d requests for %d pages", n, asked)
			}
			// The source waits for bandwidth nearly all the time. A request wakes it once.
			if n := o.woken(); n < asked/2 || n > 4*asked {
				t.Errorf("%d requests have woken the source %d times", asked, n)
			}
			if order {
				o.requireNear(from, asked, apart)
			}
			o.end()
			o.requireArrived()
		})
	}
}

// requireNear checks that what is around pages that were asked for is there, to the end of 64 KiB.
func (o *ordered) requireNear(from, pages, apart uint64) {
	o.t.Helper()
	end := from + pages*apart
	var last []uint64 // of each window
	for at := from; at < end; at += apart {
		last = append(last, at+64<<10-pageSize)
	}
	o.m.await("what is around is sent", func() bool {
		sent := o.sent()
		return !slices.ContainsFunc(last, func(at uint64) bool { return !slices.Contains(sent, at) })
	})
	o.dst.do("read %#x 1", end) // arrives behind all that
	o.requireUnasked(func() {
		for _, at := range last {
			o.dst.do("read %#x 1", at)
		}
	})
}

// woken returns how often a request has ended a wait of the source for bandwidth.
func (o *ordered) woken() int {
	o.t.Helper()
	text, err := os.ReadFile(o.trace)
	if err != nil {
		o.t.Fatal(err)
	}
	return strings.Count(string(text), "migration_rate_limit_post urgent: 1")
}
