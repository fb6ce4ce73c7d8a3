// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/eventfd"
	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// vhostFeatures are the feature bits that concern frontend and backend, not
// driver and device.
const vhostFeatures = 1<<wire.FeatureLogAll | 1<<wire.FeatureProtocolFeatures

// Backend is the backend's end of one connection with a frontend. Its exported
// methods may be called from any goroutine.
//
// SetHostNotifier, ClearHostNotifier, AddSharedObject, RemoveSharedObject and
// LookupSharedObject send a request, one at a time, and wait at most five seconds
// for the frontend's answer. They must not be called on the message goroutine:
// the frontend may be waiting for that goroutine, and would not answer. The error
// wraps [ErrNotNegotiated] if the frontend did not negotiate the feature. They
// also fail while the device is suspended: from the stop of its last queue to the
// next start of a queue.
type Backend struct {
	dev     *Device
	opts    options
	lg      *zap.Logger
	conn    *wire.Conn
	rules   map[wire.Request]rule
	cancel  context.CancelCauseFunc
	log     guestmem.DirtyLog
	mem     *guestmem.Space // replaced by the message goroutine alone
	post    postcopy
	channel channel
	queues  []*Queue

	features atomic.Uint64 // acknowledged by the frontend, with vhost's own
	protocol atomic.Uint64

	// Of the message goroutine alone.
	status       uint8
	noFeatures   bool // those of the last SET_FEATURES were refused
	inflight     inflight
	inband       []eventfd.FD // kick rings that were started by VRING_KICK
	transfer     *transfer    // of the device's state, or nil
	stateTimeout time.Duration
	postcopy     bool            // is offered
	ended        <-chan struct{} // closed when the connection has to end
}

// errClosed is the reason of a connection that the device closed.
var errClosed = errors.New("connection closed by the device")

func newBackend(dev *Device, conn *wire.Conn, lg *zap.Logger, o options) *Backend {
	b := &Backend{dev: dev, lg: lg, conn: conn, opts: o, stateTimeout: stateTimeout}
	b.inband = make([]eventfd.FD, dev.NumQueues)
	b.channel.init(lg)
	b.rules = b.newRules()
	b.mem = guestmem.NewSpace(b.newTLB())
	b.postcopy = b.mayPostcopy()
	for i := range dev.NumQueues {
		q := &Queue{index: i, log: &b.log, lg: lg.With(zap.Int("queue", i)), dialect: b.dialect}
		q.hungUp = conn.HungUp
		q.life.dev = dev
		q.call.Inband = func() { b.tellVring(wire.BackendVringCall, i) }
		q.errfd.Inband = func() { b.tellVring(wire.BackendVringErr, i) }
		q.setMemory(b.mem.Peek())
		b.queues = append(b.queues, q)
	}
	return b
}

// Features returns the negotiated feature bits without those of vhost-user.
func (b *Backend) Features() uint64 { return b.features.Load() &^ vhostFeatures }

// ProtocolFeature says whether the frontend negotiated the given bit.
func (b *Backend) ProtocolFeature(bit uint) bool {
	return wire.ProtocolFeatures(b.protocol.Load()).Has(bit)
}

// Queue returns queue i of this connection. It panics when i is out of range
// of Device.NumQueues.
func (b *Backend) Queue(i int) *Queue { return b.queues[i] }

// Memory returns the current guest memory, retained: the caller must call
// [Memory.Release]. It is never nil, but has no regions while the frontend has
// given none.
func (b *Backend) Memory() *Memory { return &Memory{b.mem.Current()} }

// ConfigChanged tells the frontend, which tells the driver, that the config space
// changed. It does not block: the notification is sent in the background, and
// several pending ones are merged. While the device is suspended it waits for the
// next start. ConfigChanged does nothing if the frontend gave no backend channel.
func (b *Backend) ConfigChanged() { b.channel.notify(note{req: wire.BackendConfigChange}) }

// Close ends the connection. A listening server then waits for the next one.
func (b *Backend) Close() { b.cancel(errClosed) }

func (b *Backend) dialect() dialect { return dialectOf(wire.Features(b.features.Load())) }

func (b *Backend) offered() uint64 {
	return b.dev.Features | vhostFeatures | 1<<wire.FeatureVersion1 |
		1<<wire.FeatureIndirectDesc | 1<<wire.FeatureEventIdx
}

func (b *Backend) offeredProtocol() uint64 {
	f := uint64(1<<wire.ProtocolMQ | 1<<wire.ProtocolLogSHMFD | 1<<wire.ProtocolReplyAck |
		1<<wire.ProtocolBackendReq | 1<<wire.ProtocolBackendSendFD | 1<<wire.ProtocolResetDevice |
		1<<wire.ProtocolConfigureMemSlots | 1<<wire.ProtocolStatus | 1<<wire.ProtocolHostNotifier |
		1<<wire.ProtocolInbandNotify)
	if b.dev.ReadConfig != nil {
		f |= 1 << wire.ProtocolConfig
	}
	if b.postcopy {
		f |= 1 << wire.ProtocolPageFault
	}
	if b.dev.SaveState != nil {
		f |= 1 << wire.ProtocolDeviceState
	}
	if b.dev.TrackInflight {
		f |= 1 << wire.ProtocolInflightSHMFD
	}
	if b.dev.SharedObject != nil {
		f |= 1 << wire.ProtocolSharedObject
	}
	for _, e := range b.dev.Extensions {
		f |= 1 << e.ProtocolFeature
	}
	return f
}

// run serves the connection until it ends, on the calling goroutine, and
// closes it. It returns nil when the frontend hung up between two messages.
func (b *Backend) run(ctx context.Context) (err error) {
	ctx, b.cancel = context.WithCancelCause(ctx)
	b.ended = ctx.Done()
	call(b.dev.Connected, b)
	defer func() {
		b.cancel(nil)
		b.close()
		if b.dev.Disconnected != nil {
			b.dev.Disconnected(b, err)
		}
	}()
	for {
		m, err := b.conn.Recv(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				m.Close()
			}
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		err = b.dispatch(ctx, m)
		m.Close()
		if err != nil {
			return fmt.Errorf("serve %v: %w", wire.Request(m.Request), err)
		}
	}
}

// close stops and frees everything of the connection. It writes nothing to guest
// memory, because the guest may run on without this device.
func (b *Backend) close() {
	if err := b.endPostcopy(true); err != nil {
		b.lg.Error("cannot end postcopy", zap.Error(err))
	}
	if err := b.endTransfer(); err != nil {
		b.lg.Error("leaving a callback behind", zap.Error(err))
	}
	for i, q := range b.queues {
		q.close()
		b.inband[i].Replace(-1)
	}
	b.inflight.close()
	b.channel.close()
	b.log.SetAll(false)
	b.log.Close()
	// The device may still call Memory, so leave an empty table.
	b.mem.Replace(b.mem.Empty()).Release()
	_ = b.conn.Close()
}
