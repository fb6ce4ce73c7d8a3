// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// stateTimeout bounds how long CHECK_DEVICE_STATE waits for the device, once
// the frontend has seen the end of the transfer.
const stateTimeout = 30 * time.Second

// addStateRules adds the requests of DEVICE_STATE.
func (b *Backend) addStateRules(rules map[wire.Request]rule) {
	rules[wire.SetDeviceStateFD] = rule{
		size: sizeTransfer, minFDs: 1, maxFDs: 1, feature: wire.ProtocolDeviceState,
		replies: true, refusal: wire.U64(wire.StateNoFD | 1).AppendTo(nil), handle: b.setDeviceStateFD,
	}
	rules[wire.CheckDeviceState] = rule{
		feature: wire.ProtocolDeviceState, replies: true, refusal: failed(), handle: b.checkDeviceState,
	}
}

// transfer moves the device's own state through a pipe, on a goroutine of its
// own (vhost-user.rst, "Migrating back-end state"). It belongs to the message
// goroutine.
type transfer struct {
	dir  wire.Direction
	pipe *statePipe
	done chan struct{}
	err  error // valid when done is closed
}

// setDeviceStateFD begins a transfer in place of an earlier one.
func (b *Backend) setDeviceStateFD(m *wire.Message) (reply, error) {
	v, err := wire.DecodeDeviceState(m.Payload)
	if err != nil {
		return reply{}, err
	}
	if v.Phase != wire.PhaseStopped || v.Direction != wire.Save && v.Direction != wire.Load {
		return reply{}, fmt.Errorf("transfer %v is unknown", v)
	}
	for _, q := range b.queues {
		if q.isStarted() {
			return reply{}, fmt.Errorf("%v device state: queue %d is not stopped", v.Direction, q.index)
		}
	}
	if err := b.endTransfer(); err != nil {
		return reply{}, err
	}
	pipe, err := newStatePipe(m.TakeFD(0))
	if err != nil {
		return reply{}, err
	}
	t := &transfer{dir: v.Direction, pipe: pipe, done: make(chan struct{})}
	b.transfer = t
	go func() {
		defer close(t.done)
		defer pipe.close() // tells the frontend that a saved state is complete
		t.err = t.run(b.dev)
	}()
	return reply{payload: wire.U64(wire.StateNoFD).AppendTo(nil)}, nil
}

func (t *transfer) run(dev *Device) error {
	if t.dir == wire.Save {
		return dev.SaveState(t.pipe)
	}
	if err := dev.LoadState(t.pipe); err != nil {
		return err
	}
	// If the device leaves state unread, the state is of another kind of device.
	if n, err := io.Copy(io.Discard, t.pipe); n != 0 || err != nil {
		return errors.Join(fmt.Errorf("%d bytes of device state are left over", n), err)
	}
	return nil
}

// checkDeviceState waits for the end of the transfer and tells how it ended.
func (b *Backend) checkDeviceState(*wire.Message) (reply, error) {
	t := b.transfer
	if t == nil {
		return reply{}, errors.New("there was no transfer of a device state")
	}
	if !b.waitFor(t.done, b.stateTimeout) {
		b.lg.Warn("transfer of the device state does not end", zap.Stringer("direction", t.dir))
	}
	if err := b.endTransfer(); err != nil {
		return reply{}, err
	}
	if t.err != nil {
		return reply{}, fmt.Errorf("%v device state: %w", t.dir, t.err)
	}
	return reply{payload: wire.U64(0).AppendTo(nil)}, nil
}

// endTransfer cancels a running transfer, and forgets it. It is an error if the device does not
// return in time; the transfer stays then.
func (b *Backend) endTransfer() error {
	t := b.transfer
	if t == nil {
		return nil
	}
	t.pipe.interrupt()
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-t.done:
		b.transfer = nil
		return nil
	case <-timer.C:
		return fmt.Errorf("%v device state: an earlier transfer does not end", t.dir)
	}
}

// hangupInterval is how often a wait of the message goroutine looks whether the
// frontend is still there.
const hangupInterval = 50 * time.Millisecond

// waitForever is the timeout of a wait that ends with the connection.
const waitForever time.Duration = math.MaxInt64

// waitFor waits until done is closed, and says whether it is. It gives up after the timeout, or
// when the frontend has disconnected.
func (b *Backend) waitFor(done <-chan struct{}, timeout time.Duration) bool {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	look := time.NewTicker(hangupInterval)
	defer look.Stop()
	for {
		select {
		case <-done:
			return true
		case <-deadline.C:
			return false
		case <-b.ended:
			return false
		case <-look.C:
			if b.conn.HungUp() {
				return false
			}
		}
	}
}
