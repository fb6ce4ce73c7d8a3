// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// rule describes a valid request, and how it is handled.
type rule struct {
	// size is the exact length of the payload, or anySize.
	size int
	// minFDs and maxFDs bound the number of descriptors.
	minFDs, maxFDs int
	// feature is the protocol feature bit that guards the request, or always.
	feature int
	// replies says that the frontend always waits for a reply. Unless there is a
	// refusal, a handler's error then ends the connection, because no reply can
	// express it.
	replies bool
	// refusal is the payload of a reply that tells of an error, or nil.
	refusal []byte
	// handle does the work. It may take descriptors from the message.
	handle func(m *wire.Message) (reply, error)
	// forget, if set, is called after a request was refused. It forgets what an
	// earlier request of this kind has set, because the frontend wanted to change
	// that.
	forget func(m *wire.Message)
}

// orForget returns r with a forget.
func (r rule) orForget(f func(m *wire.Message)) rule {
	r.forget = f
	return r
}

const (
	anySize = -1
	always  = -1
)

// reply is the answer to a request, other than a REPLY_ACK.
type reply struct {
	payload []byte
	fds     []int // stay the property of whoever made the reply
	always  bool  // sent for a request that has no reply otherwise
}

// fatalError is an error after which the connection is of no use.
type fatalError struct{ error }

// Unwrap returns the cause.
func (e fatalError) Unwrap() error { return e.error }

var errUnknown = errors.New("request is not supported")

// dispatch is the one path that every request takes: framing, negotiated
// feature, descriptors, size, handler, answer. An error ends the connection.
func (b *Backend) dispatch(ctx context.Context, m *wire.Message) error {
	if err := m.CheckRequest(); err != nil {
		return err
	}
	req := wire.Request(m.Request)
	r, known := b.rules[req]
	ans, err := b.apply(r, known, m)
	if errors.As(err, new(fatalError)) {
		return err
	}
	b.lg.Debug("request", zap.Stringer("request", req), zap.Uint32("size", m.Size), zap.Error(err))

	switch {
	case known && (r.replies || err == nil && ans.always):
		if err != nil && r.refusal == nil {
			return err
		}
		if err != nil {
			b.lg.Warn("request refused", zap.Stringer("request", req), zap.Error(err))
			ans = reply{payload: r.refusal}
		}
		return b.conn.Send(ctx, wire.Header{Request: m.Request, Flags: wire.ReplyFlags}, ans.payload,
			ans.fds...)
	case m.NeedReply() && b.ProtocolFeature(wire.ProtocolReplyAck):
		ack := wire.U64(0)
		if err != nil {
			b.lg.Warn("request refused", zap.Stringer("request", req), zap.Error(err))
			ack = 1
		}
		return b.conn.Send(ctx, wire.Header{Request: m.Request, Flags: wire.ReplyFlags},
			ack.AppendTo(nil))
	case err != nil:
		// The frontend did not ask for an acknowledgement, so it cannot be told. The
		// connection goes on: what the request should have set up will not run.
		log := b.lg.Warn
		if errors.Is(err, errAfterRefusal) {
			log = b.lg.Debug // the refusal was logged
		}
		log("request ignored", zap.Stringer("request", req), zap.Error(err))
	}
	return nil
}

func (b *Backend) apply(r rule, known bool, m *wire.Message) (reply, error) {
	switch {
	case !known:
		return reply{}, errUnknown
	case r.feature != always && !b.ProtocolFeature(uint(r.feature)):
		return reply{}, ErrNotNegotiated
	}
	ans, err := r.apply(m)
	if err != nil && r.forget != nil {
		r.forget(m)
	}
	return ans, err
}

func (r rule) apply(m *wire.Message) (reply, error) {
	switch n := len(m.FDs); {
	case n < r.minFDs || n > r.maxFDs:
		return reply{}, fmt.Errorf("%d descriptors came with it, not %d to %d", n, r.minFDs, r.maxFDs)
	case r.size != anySize && len(m.Payload) != r.size:
		return reply{}, fmt.Errorf("its payload has %d bytes, not %d", len(m.Payload), r.size)
	}
	return r.handle(m)
}

// failed is the payload of a reply that is zero for a success.
func failed() []byte { return wire.U64(1).AppendTo(nil) }

// Payload sizes.
const (
	sizeU64       = 8
	sizeState     = 8
	sizeAddr      = 40
	sizeLog       = 16
	sizeMemRegion = 40
	sizeTransfer  = 8
	sizeUUID      = 16
	sizeIOTLB     = 32
)

// newRules lists the requests that the backend understands.
func (b *Backend) newRules() map[wire.Request]rule {
	ask := func(feature int, f func() uint64) rule {
		return rule{feature: feature, replies: true, handle: func(*wire.Message) (reply, error) {
			return reply{payload: wire.U64(f()).AppendTo(nil)}, nil
		}}
	}
	tell := func(feature, size, fds int, f func(*wire.Message) error) rule {
		return rule{size: size, minFDs: fds, maxFDs: fds, feature: feature,
			handle: func(m *wire.Message) (reply, error) { return reply{}, f(m) }}
	}
	optionalFD := func(r rule) rule {
		r.minFDs, r.maxFDs = 0, 1
		return r
	}

	rules := map[wire.Request]rule{
		wire.GetFeatures:         ask(always, b.offered),
		wire.SetFeatures:         tell(always, sizeU64, 0, b.setFeatures).orForget(b.forgetFeatures),
		wire.GetProtocolFeatures: ask(always, b.offeredProtocol),
		wire.SetProtocolFeatures: tell(always, sizeU64, 0, b.setProtocolFeatures),
		wire.SetOwner:            tell(always, 0, 0, func(*wire.Message) error { return nil }),
		wire.ResetOwner:          tell(always, 0, 0, b.resetOwner),
		wire.GetQueueNum: ask(wire.ProtocolMQ, func() uint64 {
			return uint64(b.dev.NumQueues)
		}),
		wire.SetBackendReqFD: tell(wire.ProtocolBackendReq, 0, 1, b.setBackendReqFD).
			orForget(func(*wire.Message) { b.channel.close() }),

		wire.SetMemTable: {size: anySize, maxFDs: wire.MaxMemRegions, feature: always,
			handle: b.setMemTable, forget: b.forgetMemTable},
		wire.GetMaxMemSlots: ask(wire.ProtocolConfigureMemSlots, func() uint64 { return maxMemSlots }),
		wire.AddMemReg: {size: anySize, maxFDs: 1, feature: wire.ProtocolConfigureMemSlots,
			handle: b.addMemReg},
		// A frontend may send the descriptor along, for old backends.
		wire.RemMemReg: optionalFD(tell(wire.ProtocolConfigureMemSlots, sizeMemRegion, 0, b.remMemReg)),
		wire.SetLogBase: {size: sizeLog, minFDs: 1, maxFDs: 1, feature: wire.ProtocolLogSHMFD,
			replies: true, handle: b.setLogBase},
		wire.SetLogFD: tell(wire.ProtocolLogSHMFD, anySize, 1, b.setLogFD),

		wire.SetVringNum: tell(always, sizeState, 0, b.setVringNum).
			orForget(b.forRing((*Queue).forgetSize)),
		wire.SetVringAddr: tell(always, sizeAddr, 0, b.setVringAddr).
			orForget(b.forRing((*Queue).forgetAddr)),
		wire.SetVringBase: tell(always, sizeState, 0, b.setVringBase).
			orForget(b.forRing((*Queue).forgetBase)),
		wire.GetVringBase:   {size: sizeState, feature: always, replies: true, handle: b.getVringBase},
		wire.SetVringKick:   optionalFD(tell(always, sizeU64, 0, b.setVringKick)),
		wire.SetVringCall:   optionalFD(tell(always, sizeU64, 0, b.setVringCall)),
		wire.SetVringErr:    optionalFD(tell(always, sizeU64, 0, b.setVringErr)),
		wire.SetVringEnable: tell(always, sizeState, 0, b.setVringEnable),

		wire.GetConfig: {size: anySize, feature: wire.ProtocolConfig, replies: true,
			handle: b.getConfig},
		wire.SetConfig:   tell(wire.ProtocolConfig, anySize, 0, b.setConfig),
		wire.ResetDevice: tell(wire.ProtocolResetDevice, 0, 0, b.resetDevice),
		wire.GetStatus:   ask(wire.ProtocolStatus, func() uint64 { return uint64(b.status) }),
		wire.SetStatus:   tell(wire.ProtocolStatus, sizeU64, 0, b.setStatus),
	}
	for _, add := range []func(map[wire.Request]rule){
		b.addInflightRules, b.addStateRules, b.addSharedRules, b.addIOTLBRules, b.addPostcopyRules,
		b.addInbandRules,
	} {
		add(rules)
	}
	for _, e := range b.dev.Extensions {
		rules[wire.Request(e.Request)] = rule{
			size: anySize, maxFDs: wire.MaxMemRegions, feature: int(e.ProtocolFeature), replies: e.Replies,
			handle: func(m *wire.Message) (reply, error) { return b.extension(e, m) },
		}
	}
	return rules
}
