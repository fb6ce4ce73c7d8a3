// SPDX-License-Identifier: Apache-2.0

package device

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
)

// maxWait bounds the time of one exchange, whatever deadline the frontend sets.
const maxWait = time.Minute

// exchange is one open request: from the frontend's question to our answer.
type exchange struct {
	ask        uint64 // the frontend's number
	generation uint64 // the driver's
	deadline   *time.Timer

	raised  time.Time // the event was put into eventq
	started time.Time // the driver's first sign of life; zero before it

	pageShift uint8 // of the first report; 0 before it
	resumed   bool  // blocks may repeat
	truncated bool
	records   uint64
	trailer   protocol.Trailer
	decode    time.Duration
}

// askLoop passes the frontend's signals to the state machine until the window is
// closed.
func (d *Device) askLoop(w *window.Window) {
	for {
		if err := w.WaitAsk(); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				d.lg.Error("no more requests from this frontend", zap.Error(err))
			}
			return
		}
		d.mu.Lock()
		if d.window == w {
			d.asked(w.Request())
		}
		d.mu.Unlock()
	}
}

// asked handles a signal of the frontend. d.mu is held, as in all that follows.
func (d *Device) asked(r window.Request) {
	if d.open != nil && r.Cancelled >= d.open.ask {
		d.finish(window.StatusCancelled, "frontend gave up")
	}
	if r.Generation == d.lastAsk {
		return
	}
	d.lastAsk = r.Generation
	d.finish(window.StatusCancelled, "overtaken by a newer request")
	if r.Cancelled >= r.Generation {
		return
	}
	d.begin(r)
}

// begin opens a request and raises the migration interrupt.
func (d *Device) begin(r window.Request) {
	d.open = &exchange{ask: r.Generation, generation: newGeneration()}
	d.free.Reset()

	switch {
	case d.config.Flags&protocol.ConfigEnabled == 0:
		d.finish(window.StatusDisabled, "switched off by the operator")
		return
	case d.driver != nil && d.driver.refuses(): // even one that has no queues
		d.finish(window.StatusRefused, d.driver.refusal())
		return
	case d.driver == nil || d.eventq == nil:
		d.finish(window.StatusNoDriver, "no driver said hello")
		return
	}
	wait := min(time.Duration(r.DeadlineNS-monotonic()), maxWait)
	wait -= wait / 10 // for the answer's way back, on a busy host
	if wait <= 0 {
		d.finish(window.StatusDriverTimeout, "the request came after its own deadline")
		return
	}

	x := d.open
	x.raised = time.Now()
	sent := d.sendEvent(protocol.Event{
		Type:          protocol.EventReportFree,
		Generation:    x.generation,
		BudgetUS:      d.config.BudgetUS,
		BudgetEntries: d.config.BudgetEntries,
		DeadlineMS:    uint32(max(wait.Milliseconds(), 1)), // 0 would say that it is not known
	})
	if !sent {
		d.finish(window.StatusDriverTimeout, "the driver left no buffer for the event")
		return
	}
	x.deadline = time.AfterFunc(wait, func() { d.expire(x) })
	d.broadcast()
}

func (d *Device) expire(x *exchange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open != x {
		return
	}
	why := "the driver did not finish its report in time"
	if x.started.IsZero() {
		why = "the driver gave no sign of life"
	}
	d.finish(window.StatusDriverTimeout, why)
}

// finish ends the open request, if there is one: it answers the frontend, and
// tells a driver that may still be at work that nobody waits.
func (d *Device) finish(status window.Status, why string) {
	x := d.open
	if x == nil {
		return
	}
	d.open = nil
	if x.deadline != nil {
		x.deadline.Stop()
		if status != window.StatusOK && status != window.StatusRefused {
			d.sendEvent(protocol.Event{Type: protocol.EventCancel, Generation: x.generation})
		}
	}
	a := window.Answer{Status: status, Truncated: x.truncated}
	if d.window != nil {
		if status == window.StatusOK {
			d.fillAnswer(x, &a)
		}
		d.window.Publish(x.ask, a)
	}
	d.record(x, a, why)
	d.broadcast()
}

// fillAnswer writes the ranges and takes the times of a report that is whole.
func (d *Device) fillAnswer(x *exchange, a *window.Answer) {
	begun := time.Now()
	a.Ranges, a.Bytes = d.window.WriteRanges(d.free)
	a.Truncated = a.Truncated || a.Bytes>>freeset.FrameShift != d.free.Frames()
	now := time.Now()
	x.decode += now.Sub(begun)
	a.Times = x.times(now)
}

// times splits the exchange into parts that add up to the time from the
// interrupt to now. A STARTED that was read late, on a busy host, does not count
// the walk as waking.
func (x *exchange) times(now time.Time) window.Times {
	total := now.Sub(x.raised)
	rest := max(total-x.decode, 0)
	walk := min(time.Duration(x.trailer.WalkUS)*time.Microsecond, rest)
	wakeup := time.Duration(0)
	if !x.started.IsZero() { // STARTED is a SHOULD
		wakeup = min(x.started.Sub(x.raised), rest-walk)
	}
	return window.Times{
		Wakeup:   microseconds(wakeup),
		Walk:     microseconds(walk),
		Transfer: microseconds(rest - walk - wakeup),
		Decode:   microseconds(x.decode),
		HoldMax:  x.trailer.HoldMaxUS,
		Holds:    x.trailer.Holds,
	}
}

// newGeneration returns a number that this guest was never asked with, here or
// on any earlier host [FBPP-EV-3].
func newGeneration() uint64 {
	var p [8]byte
	_, _ = rand.Read(p[:]) // documented to never fail
	return max(binary.LittleEndian.Uint64(p[:]), 1)
}

// monotonic returns CLOCK_MONOTONIC in nanoseconds, the clock of deadlines.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails only for an unknown clock
	return ts.Nano()
}
