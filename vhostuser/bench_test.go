// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// BenchmarkRoundTrip measures a request from the driver's kick to its
// interrupt, one at a time.
func BenchmarkRoundTrip(b *testing.B) {
	e := newEcho()
	v := newVM(b, serve(b, &e.Device), vhosttest.Options{})
	v.start()
	in, out := v.request("12345678")
	q := v.queues[0]
	for b.Loop() {
		if _, err := q.Add(in, out); err != nil {
			b.Fatal(err)
		}
		if err := q.Kick.Raise(); err != nil {
			b.Fatal(err)
		}
		if _, err := q.Wait(10 * time.Second); err != nil {
			b.Fatal(err)
		}
	}
}
