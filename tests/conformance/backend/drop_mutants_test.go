// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"testing"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Devices that ask to drop cache: one keeps the rules, the others do not.
func TestDefectsInDroppingCacheAreFound(t *testing.T) {
	for _, tc := range []struct {
		defect string
		kick   func(q *vhostuser.Queue) // comes before the device's own
		rules  string
		want   report.Outcome
	}{
		{"none", func(*vhostuser.Queue) {}, "FBPP-DROP-*", report.Pass},
		{"drivers that cannot are asked", promise, "FBPP-DROP-1", report.Fail},
		{"an event that asks for nothing has bounds", sendBounds, "FBPP-DROP-2", report.Fail},
		{"what is counted is not compared", countNothing, "FBPP-DROP-4", report.Fail},
	} {
		t.Run(tc.defect, func(t *testing.T) {
			t.Parallel()
			d := device.New(device.Options{
				Logger: zap.NewNop(), WindowSize: 1 << 16, Cache: device.CacheDrop,
			}).VhostUser()
			kick := d.Kick
			d.Kick = func(q *vhostuser.Queue) {
				tc.kick(q)
				kick(q)
			}
			c := backend.Config{
				SocketPath: serve(t, d), Profile: backend.FreePage(), Patience: patienceFor(tc.want),
			}
			for id, r := range results(t, c, tc.rules) {
				if r.Outcome != tc.want {
					t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
				}
			}
		})
	}
}

// promise has a driver say that it can drop cache.
func promise(q *vhostuser.Queue) {
	if q.Index() != protocol.ReportQueue {
		return
	}
	c, err := q.Pop()
	if c == nil || err != nil {
		return
	}
	defer func() { _ = q.Unpop(c) }()
	first := c.Readable()[0].Bytes // the suite's messages are in one piece
	h, err := protocol.DecodeHeader(first)
	if err == nil && h.Type == protocol.MessageHello && len(first) > protocol.HeaderSize {
		first[protocol.HeaderSize] |= byte(protocol.FeatureDropCache)
	}
}

// countNothing has a report count no dropped cache.
func countNothing(q *vhostuser.Queue) {
	if q.Index() != protocol.ReportQueue {
		return
	}
	c, err := q.Pop()
	if c == nil || err != nil {
		return
	}
	defer func() { _ = q.Unpop(c) }()
	first := c.Readable()[0].Bytes // the suite's messages are in one piece
	h, err := protocol.DecodeHeader(first)
	if err == nil && h.Flags&protocol.FlagLast != 0 {
		clear(first[len(first)-8:])
	}
}

// sendBounds sends an event that is not known, with bounds for cache.
func sendBounds(q *vhostuser.Queue) {
	if q.Index() != protocol.EventQueue {
		return
	}
	c, err := q.Pop()
	if c == nil || err != nil {
		return
	}
	var p [protocol.EventSize]byte
	e := protocol.Event{Type: protocol.EventChanged, DropMiB: 1, DropMS: 1}
	e.Encode(p[:])
	if _, err := c.WriteAt(p[:], 0); err == nil && q.Push(c, protocol.EventSize) == nil {
		_ = q.Notify()
	}
}
