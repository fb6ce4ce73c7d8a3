// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// addIOTLBRules adds the request of ACCESS_PLATFORM.
func (b *Backend) addIOTLBRules(rules map[wire.Request]rule) {
	rules[wire.IOTLBMsg] = rule{
		size: sizeIOTLB, feature: always, replies: true, refusal: failed(),
		handle: b.iotlbMsg, forget: b.forgetTranslations,
	}
}

// newTLB returns a TLB that asks the frontend over the backend channel.
func (b *Backend) newTLB() *guestmem.TLB {
	t := guestmem.NewTLB()
	t.Ask = func(v wire.IOTLB, stop <-chan struct{}) error {
		_, err := b.channel.ask(&exchange{req: wire.BackendIOTLBMsg, payload: v.AppendTo(nil)}, stop)
		return err
	}
	t.Want = func(v wire.IOTLB) { b.channel.notify(note{req: wire.BackendIOTLBMsg, tlb: v}) }
	return t
}

// iotlbMsg takes translations from the frontend, or gives them up.
func (b *Backend) iotlbMsg(m *wire.Message) (reply, error) {
	v, err := wire.DecodeIOTLB(m.Payload)
	if err != nil {
		return reply{}, err
	}
	if !b.mem.TLB.On.Load() {
		return reply{}, fmt.Errorf("%v: %w", wire.Features(1<<wire.FeatureAccessPlatform),
			ErrNotNegotiated)
	}
	switch v.Type {
	case wire.IOTLBUpdate:
		err = b.addTranslation(v)
	case wire.IOTLBInvalidate:
		err = b.removeTranslations(v)
	default:
		err = fmt.Errorf("type of %v is not for backends", v)
	}
	b.lg.Debug("translation", zap.Stringer("message", v), zap.Error(err))
	return reply{payload: wire.U64(0).AppendTo(nil)}, err
}

func (b *Backend) addTranslation(v wire.IOTLB) error {
	mem := b.mem.Peek()
	if err := mem.AddTranslation(v); err != nil {
		return err
	}
	for _, q := range b.queues {
		if q.paused() {
			q.setMemory(mem) // the ring may wait for this translation
		}
	}
	return nil
}

// removeTranslations forgets a range. When it returns, the range is not used any more: each
// queue has looked up its ring again, under the lock that all writes to guest memory hold.
func (b *Backend) removeTranslations(v wire.IOTLB) error {
	mem := b.mem.Peek()
	if err := mem.RemoveTranslations(v); err != nil {
		return err
	}
	for _, q := range b.queues {
		q.setMemory(mem)
	}
	return nil
}

// forgetTranslations forgets those that a refused message was about, or all of
// them if that is not clear.
func (b *Backend) forgetTranslations(m *wire.Message) {
	if !b.mem.TLB.On.Load() {
		return
	}
	v, err := wire.DecodeIOTLB(m.Payload)
	if err != nil || v.Type != wire.IOTLBUpdate || b.removeTranslations(v) != nil {
		_ = b.removeTranslations(wire.IOTLB{}) // zeroes stand for everything
	}
}
