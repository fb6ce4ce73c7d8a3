// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"syscall"
	"testing"
)

// cuts is how often the network fails in one migration.
const cuts = 10

// Wherever the network fails after the switchover, postcopy recovers, and nothing is
// lost: neither what was sent before, nor what the guest writes at the destination.
func TestPostcopyRecoversWhereverTheNetworkFails(t *testing.T) {
	const huge = 2 << 20
	for _, tc := range []struct {
		name         string
		hybrid       bool
		hostPage     uint64
		capabilities []string
	}{
		{name: "postcopy"},
		{name: "hybrid", hybrid: true},
		{name: "hybrid with preempt", hybrid: true, capabilities: []string{"postcopy-preempt"}},
		{name: "hybrid with huge pages", hybrid: true, hostPage: huge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrdered(t, max(tc.hostPage, pageSize), tc.capabilities...)
			if tc.hybrid {
				o.makeHybrid()
			}
			o.begin()
			o.gently(func() {
				o.answer(hot, cold)
				o.writeEach()
			})
			if tc.hybrid {
				o.switches()
			} else {
				o.switchOver()
			}
			left := o.remaining()
			o.m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 4 << 20})
			for i := range int64(cuts) {
				// Half is left, of which much is zero and gone in an instant. Once a source
				// has sent all of its memory, a failure is for good, as with stock QEMU.
				o.m.await("a further part is sent", func() bool {
					return o.remaining() <= left*(2*cuts-1-i)/(2*cuts)
				})
				// Pages of each class: some have arrived, some have to be asked for.
				at := filled + uint64(i)*3<<20 + 7*pageSize
				o.dst.fill(at, pageSize, 0xa5)
				o.written = append(o.written, at)
				o.failsOnce()
			}
			o.end()
			o.requireArrived()
		})
	}
}

// A destination that is lost when all has been sent, but before it has loaded the devices,
// has never run the guest. It goes on at the source, and the next migration skips memory,
// and loses none.
func TestDestinationThatIsLostBeforeItRuns(t *testing.T) {
	status := "postcopy-active"
	if parts.IsAtLeast(10, 2) {
		status = "postcopy-device" // until the devices are loaded
	}
	o := newOrdered(t, pageSize)
	o.begin()
	o.answer(nil, nil)
	o.link.loses.Store(true)
	o.m.execute("migrate-start-postcopy", nil)
	o.awaitStatus(o.m, status)
	o.m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
	o.m.await("all is sent", func() bool { return o.remaining() == 0 })
	o.dst.Signal(syscall.SIGKILL)
	o.link.cut()
	o.awaitStatus(o.m, "failed")
	o.m.await("the guest goes on", func() bool {
		status, err := o.m.Status(o.m.ctx)
		return err == nil && status == "running"
	})
	o.link.loses.Store(false)
	o.again()
	o.begin()
	o.answer(nil, nil)
	o.writeEach()
	o.switchOver()
	o.end()
	o.requireArrived()
}

// remaining returns how much memory the source has still to send, in bytes.
func (o *ordered) remaining() int64 {
	o.t.Helper()
	figures, err := o.m.QueryMigrate(o.m.ctx)
	if err != nil {
		o.t.Fatal(err)
	}
	return figures.RAM.Remaining
}
