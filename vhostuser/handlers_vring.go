// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// defaultQueueSize bounds the size of a queue unless the device says otherwise.
const defaultQueueSize = 1024

func (b *Backend) queue(i uint32) (*Queue, error) {
	if i >= uint32(len(b.queues)) {
		return nil, fmt.Errorf("queue %d of %d does not exist", i, len(b.queues))
	}
	return b.queues[i], nil
}

// forRing returns a forget for the ring that a message names. A message that
// names none changes nothing.
func (b *Backend) forRing(forget func(*Queue)) func(*wire.Message) {
	return func(m *wire.Message) {
		if len(m.Payload) < 4 {
			return
		}
		if q, err := b.queue(binary.LittleEndian.Uint32(m.Payload)); err == nil {
			forget(q)
		}
	}
}

// vringState decodes a message about one ring and finds it.
func (b *Backend) vringState(m *wire.Message) (*Queue, uint32, error) {
	v, err := wire.DecodeVringState(m.Payload)
	if err != nil {
		return nil, 0, err
	}
	q, err := b.queue(v.Index)
	return q, v.Num, err
}

func (b *Backend) setVringNum(m *wire.Message) error {
	q, n, err := b.vringState(m)
	if err != nil {
		return err
	}
	limit := b.dev.MaxQueueSize
	if limit == 0 {
		limit = defaultQueueSize
	}
	return q.setNum(n, limit)
}

func (b *Backend) setVringBase(m *wire.Message) error {
	q, n, err := b.vringState(m)
	if err != nil {
		return err
	}
	return q.setBase(n)
}

func (b *Backend) setVringAddr(m *wire.Message) error {
	a, err := wire.DecodeVringAddr(m.Payload)
	if err != nil {
		return err
	}
	q, err := b.queue(a.Index)
	if err != nil {
		return err
	}
	return b.retry(func() error { return q.setAddr(a) })
}

// getVringBase stops the ring. When it returns, the ring and the guest's buffers are not
// written any more, and Kick is not called. It keeps the memory table: a frontend that uses
// memory slots does not send it again.
func (b *Backend) getVringBase(m *wire.Message) (reply, error) {
	q, _, err := b.vringState(m)
	if err != nil {
		return reply{}, err
	}
	state := wire.VringState{Index: uint32(q.index), Num: uint32(q.stop(true))}
	b.inband[q.index].Replace(-1)
	b.channel.forget(q.index)
	b.channel.suspend(!slices.ContainsFunc(b.queues, (*Queue).isStarted))
	return reply{payload: state.AppendTo(nil)}, nil
}

func (b *Backend) setVringEnable(m *wire.Message) error {
	q, on, err := b.vringState(m)
	switch {
	case err != nil:
		return err
	case !wire.Features(b.features.Load()).Has(wire.FeatureProtocolFeatures):
		return ErrNotNegotiated
	case on > 1:
		return fmt.Errorf("enable vring: %d is neither 0 nor 1", on)
	}
	q.enable(on == 1)
	return nil
}

// vringFD decodes a message that carries a descriptor for one ring, and takes
// the descriptor: -1 if there is none.
func (b *Backend) vringFD(m *wire.Message) (*Queue, int, error) {
	v, err := wire.DecodeVringFD(m.Payload)
	if err != nil {
		return nil, 0, err
	}
	q, err := b.queue(v.Index)
	switch {
	case err != nil:
		return nil, 0, err
	case v.NoFD != (len(m.FDs) == 0):
		return nil, 0, errors.New("its descriptor and the NOFD bit contradict each other")
	case v.NoFD:
		return q, -1, nil
	}
	return q, m.TakeFD(0), nil
}

func (b *Backend) setVringKick(m *wire.Message) error {
	q, fd, err := b.vringFD(m)
	if err != nil {
		return err
	}
	b.inband[q.index].Replace(-1)
	return b.startQueue(q, fd)
}

// startQueue starts a ring. It consumes the kick descriptor, also when it fails,
// and has done nothing else then.
func (b *Backend) startQueue(q *Queue, kick int) error {
	k := newKickFD(kick, q.lg)
	if !q.isStarted() {
		err := b.mayStart()
		if err == nil {
			err = q.open()
		}
		if err != nil {
			k.close()
			return fmt.Errorf("start ring: %w", err)
		}
	}
	if err := b.endTransfer(); err != nil {
		b.lg.Error("device runs while its state is transferred", zap.Error(err))
	}
	b.channel.suspend(false)
	q.run(k)
	return nil
}

// errAfterRefusal says that a ring cannot start, because a request to set it up was refused.
var errAfterRefusal = errors.New("what it was to start with was refused")

// mayStart returns an error if a setting of all rings was refused: a ring cannot start then.
func (b *Backend) mayStart() error {
	switch {
	case b.noFeatures:
		return fmt.Errorf("%w: its features", errAfterRefusal)
	case b.inflight.refused:
		return fmt.Errorf("%w: its inflight memory", errAfterRefusal)
	}
	return nil
}

func (b *Backend) setVringCall(m *wire.Message) error {
	q, fd, err := b.vringFD(m)
	if err != nil {
		return err
	}
	q.setCall(fd)
	return nil
}

func (b *Backend) setVringErr(m *wire.Message) error {
	q, fd, err := b.vringFD(m)
	if err != nil {
		return err
	}
	q.setErr(fd)
	return nil
}
