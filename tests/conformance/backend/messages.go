// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// unknownRequest is one that the protocol does not define, far from those that
// it will.
const unknownRequest wire.Request = 0x7654

// messages are the rules of single messages and their framing.
func messages() []check {
	return []check{
		{id: "VHU-MSG-1", source: "vhost-user.rst, Header",
			text: "The flags of a reply are 0x5: version 1 and the reply bit, and no other.",
			run:  replyFlags},
		{id: "VHU-MSG-2", source: "vhost-user.rst, Communication",
			text: "A reply carries the number of its request and the payload that the request's reply has.",
			run:  replyShape},
		{id: "VHU-MSG-3", source: "vhost-user.rst, Message Specification; the socket is a stream",
			text: "A request that arrives in pieces is taken as one.", run: requestInPieces},
		{id: "VHU-MSG-4", source: "vhost-user.rst, Message Specification; the socket is a stream",
			text: "Requests that arrive together are answered one by one, in their order.",
			run:  requestsTogether},
		{id: "VHU-MSG-5", source: "vhost-user.rst, Communication",
			text: "A request without a reply of its own is not answered unless it asks for it.",
			run:  noUnaskedReply},
		{id: "VHU-MSG-6", source: "vhost-user.rst, Communication", advice: true,
			text: "An unknown request does not end the connection.", run: unknownRequestIgnored},
		{id: "VHU-MSG-7", source: "vhost-user.rst, Header", advice: true,
			text: "A message of another version than 1 is not taken for one of version 1.",
			run:  otherVersion},
		{id: "VHU-MSG-8", source: "vhost-user.rst, Header", advice: true,
			text: "A header that promises a payload of 4 GiB does the backend no harm.", run: hugePayload},
		{id: "VHU-MSG-9", source: "vhost-user.rst, Payload", advice: true,
			text: "A payload that is shorter than its type is refused.", run: shortPayload},
		{id: "VHU-MSG-10", source: "vhost-user.rst, Communication", advice: true,
			text: "Random bytes in place of messages do the backend no harm.", run: randomBytes},
	}
}

// exchange sends a request and returns what comes back, whatever it is.
func (s *session) exchange(
	f *vhosttest.Frontend, req wire.Request, flags uint32, payload []byte,
) *wire.Message {
	s.must(f.Send(req, flags, payload), "send %v", req)
	return s.reply(f, req)
}

func (s *session) reply(f *vhosttest.Frontend, req wire.Request) *wire.Message {
	m, err := f.Recv()
	s.must(err, "wait for the reply to %v", req)
	s.Cleanup(m.Close)
	return m
}

// asked are the requests with a reply that are legal at this point.
func (s *session) asked(f *vhosttest.Frontend) []wire.Request {
	reqs := []wire.Request{wire.GetFeatures}
	if f.Offered.Has(wire.FeatureProtocolFeatures) {
		reqs = append(reqs, wire.GetProtocolFeatures)
	}
	for _, r := range []struct {
		bit uint
		req wire.Request
	}{
		{wire.ProtocolMQ, wire.GetQueueNum},
		{wire.ProtocolConfigureMemSlots, wire.GetMaxMemSlots},
		{wire.ProtocolStatus, wire.GetStatus},
	} {
		if f.Negotiated.Has(r.bit) {
			reqs = append(reqs, r.req)
		}
	}
	return reqs
}

// negotiate is Realize for backends whose replies may be wrong.
func (s *session) negotiate() *vhosttest.Frontend {
	f := s.connect()
	number := func(req wire.Request) uint64 {
		m := s.exchange(f, req, 0, nil)
		v, err := wire.DecodeU64(m.Payload)
		s.must(err, "reply to %v", req)
		return uint64(v)
	}
	f.Offered = wire.Features(number(wire.GetFeatures))
	if f.Offered.Has(wire.FeatureProtocolFeatures) {
		f.Protocol = wire.ProtocolFeatures(number(wire.GetProtocolFeatures))
		f.Negotiated = f.Protocol & (1<<wire.ProtocolMQ | 1<<wire.ProtocolReplyAck |
			1<<wire.ProtocolConfigureMemSlots | 1<<wire.ProtocolStatus)
		payload := wire.U64(f.Negotiated).AppendTo(nil)
		s.must(f.Send(wire.SetProtocolFeatures, 0, payload), "set protocol features")
	}
	return f
}

// modern is the payload of SET_FEATURES that any backend accepts.
func modern(f *vhosttest.Frontend) []byte {
	wanted := wire.Features(1<<wire.FeatureVersion1 | 1<<wire.FeatureProtocolFeatures)
	return wire.U64(f.Offered & wanted).AppendTo(nil)
}

func replyFlags(s *session) {
	f := s.negotiate()
	for _, req := range s.asked(f) {
		if m := s.exchange(f, req, 0, nil); m.Flags != wire.ReplyFlags {
			s.Failf("the reply to %v has flags %#x", req, m.Flags)
		}
	}
	if !f.Negotiated.Has(wire.ProtocolReplyAck) {
		return
	}
	m := s.exchange(f, wire.SetFeatures, wire.FlagNeedReply, modern(f))
	if m.Flags != wire.ReplyFlags {
		s.Failf("the acknowledgement of %v has flags %#x", wire.SetFeatures, m.Flags)
	}
}

func replyShape(s *session) {
	f := s.negotiate()
	for _, req := range s.asked(f) {
		m := s.exchange(f, req, 0, nil)
		if m.Request != uint32(req) || m.Size != 8 || len(m.FDs) != 0 {
			s.Failf("the reply to %v is %v with %d descriptors, and not a number", req, m.Header, len(m.FDs))
		}
	}
	m := s.exchange(f, wire.GetVringBase, 0, wire.VringState{}.AppendTo(nil))
	if v, err := wire.DecodeVringState(m.Payload); err != nil || v.Index != 0 {
		s.Failf("the reply to %v is %v with payload %x: %v", wire.GetVringBase, m.Header, m.Payload, err)
	}
}

func requestInPieces(s *session) {
	f := s.negotiate()
	h := wire.Header{Request: uint32(wire.GetFeatures), Flags: wire.Version}
	for _, b := range h.AppendTo(nil) {
		s.must(f.SendRaw([]byte{b}), "send a byte")
		time.Sleep(time.Millisecond)
	}
	if m := s.reply(f, wire.GetFeatures); m.Request != uint32(wire.GetFeatures) {
		s.Failf("the reply to %v in 12 pieces is %v", wire.GetFeatures, m.Header)
	}
	h = wire.Header{Request: uint32(wire.SetFeatures), Flags: wire.Version, Size: 8}
	s.must(f.SendRaw(h.AppendTo(nil)), "send a header")
	time.Sleep(5 * time.Millisecond)
	s.must(f.SendRaw(modern(f)), "send a payload")
	s.must(f.Barrier(), "ask after a payload that came late")
}

func requestsTogether(s *session) {
	f := s.negotiate()
	reqs := s.asked(f)
	var b []byte
	for _, req := range reqs {
		b = wire.Header{Request: uint32(req), Flags: wire.Version}.AppendTo(b)
	}
	s.must(f.SendRaw(b), "send %d requests", len(reqs))
	for _, req := range reqs {
		if m := s.reply(f, req); m.Request != uint32(req) {
			s.Failf("%v is answered by %v", req, m.Header)
		}
	}
}

func noUnaskedReply(s *session) {
	f := s.negotiate()
	for _, r := range []struct {
		req     wire.Request
		payload []byte
	}{
		{wire.SetFeatures, modern(f)},
		{wire.SetVringNum, wire.VringState{Num: 64}.AppendTo(nil)},
		{wire.SetVringBase, wire.VringState{}.AppendTo(nil)},
	} {
		s.must(f.Send(r.req, 0, r.payload), "send %v", r.req)
		if m := s.exchange(f, wire.GetFeatures, 0, nil); m.Request != uint32(wire.GetFeatures) {
			s.Failf("%v, which did not ask for a reply, got %v with payload %x", r.req, m.Header, m.Payload)
		}
	}
}

func unknownRequestIgnored(s *session) {
	f := s.negotiate()
	s.must(f.Send(unknownRequest, 0, nil), "send an unknown request")
	s.must(f.Barrier(), "ask after an unknown request")
}

func otherVersion(s *session) {
	f := s.negotiate()
	h := wire.Header{Request: uint32(wire.GetFeatures), Flags: 2}
	s.must(f.SendRaw(h.AppendTo(nil)), "send a message of version 2")
	f.Timeout = quiet
	if m, err := f.Recv(); err == nil {
		m.Close()
		s.Failf("a message of version 2 was answered by %v", m.Header)
	}
	s.serves(f, "after a message of version 2")
}

func hugePayload(s *session) {
	f := s.negotiate()
	h := wire.Header{Request: uint32(wire.SetMemTable), Flags: wire.Version, Size: 1<<32 - 1}
	s.must(f.SendRaw(append(h.AppendTo(nil), make([]byte, 64)...)), "send a header")
	time.Sleep(quiet)
	s.serves(f, "after a header that promised 4 GiB")
}

func shortPayload(s *session) {
	for _, r := range []struct {
		req  wire.Request
		size int
	}{
		{wire.SetFeatures, 4}, {wire.SetVringNum, 4}, {wire.SetVringAddr, 16}, {wire.SetMemTable, 4},
	} {
		s.refuse(s.realizeWith(wire.ProtocolReplyAck), "a payload cut short", r.req, make([]byte, r.size))
	}
}

func randomBytes(s *session) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 16 {
		f := s.negotiate()
		b := make([]byte, 1+rnd.IntN(600))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		if rnd.IntN(2) == 0 { // a plausible header
			h := wire.Header{Request: 1 + rnd.Uint32N(44), Flags: wire.Version, Size: rnd.Uint32N(300)}
			b = append(h.AppendTo(nil), b...)
		}
		if err := f.SendRaw(b); err != nil && !closed(err) {
			s.Failf("send random bytes: %v", err)
		}
		f.Close()
	}
	s.serves(s.connect(), "after random bytes")
}

// acks are the rules of REPLY_ACK.
func acks() []check {
	const source = "vhost-user.rst, VHOST_USER_PROTOCOL_F_REPLY_ACK"
	return []check{
		{id: "VHU-ACK-1", source: source,
			text: "A request that asks for a reply and succeeds is answered by zero.", run: ackSuccess},
		{id: "VHU-ACK-2", source: source,
			text: "A request that asks for a reply and fails is answered by a value other than zero.",
			run:  ackFailure},
		{id: "VHU-ACK-3", source: source,
			text: "A request that has a reply of its own gets that reply alone when it asks for one.",
			run:  ackOnce},
		{id: "VHU-ACK-4", source: source, advice: true,
			text: "Without REPLY_ACK no request is acknowledged.", run: ackNotNegotiated},
		{id: "VHU-ACK-5", source: source,
			text: "An unknown request that asks for a reply is answered by a value other than zero.",
			run:  ackUnknown},
	}
}

func ackSuccess(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	s.accept(f, wire.SetFeatures, modern(f))
	s.accept(f, wire.SetVringNum, wire.VringState{Num: 64}.AppendTo(nil))
}

func ackFailure(s *session) {
	// No backend has a queue of this number.
	s.answersRefusal(wire.SetVringNum, wire.VringState{Index: 1 << 30, Num: 64}.AppendTo(nil))
}

func ackUnknown(s *session) { s.answersRefusal(unknownRequest, nil) }

// answersRefusal fails unless the backend refuses a request by an acknowledgement. After
// that the backend may close the connection.
func (s *session) answersRefusal(req wire.Request, payload []byte) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	err := f.Confirm(req, payload)
	switch {
	case err == nil:
		s.Failf("%v was acknowledged as a success", req)
	case !errors.As(err, new(*vhosttest.Refused)):
		s.Failf("%v was not acknowledged: %v", req, err)
	}
	switch err := f.Barrier(); {
	case closed(err):
		s.Notef("after the refusal of %v the backend closed the connection", req)
	default:
		s.must(err, "ask after a refusal")
	}
	s.serves(f, "after %v was refused", req)
}

func ackOnce(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	for _, req := range s.asked(f) {
		s.exchange(f, req, wire.FlagNeedReply, nil)
		m := s.exchange(f, wire.GetFeatures, 0, nil)
		if m.Request != uint32(wire.GetFeatures) || m.Flags != wire.ReplyFlags {
			s.Failf("%v got a second answer: %v", req, m.Header)
		}
	}
	if f.Send(wire.GetVringBase, wire.FlagNeedReply, wire.VringState{}.AppendTo(nil)) == nil {
		s.reply(f, wire.GetVringBase)
		s.must(f.Barrier(), "ask after %v", wire.GetVringBase)
	}
}

func ackNotNegotiated(s *session) {
	f := s.realize(vhosttest.Options{Without: 1<<wire.ProtocolReplyAck | 1<<wire.ProtocolBackendReq})
	s.need(f.Offered.Has(wire.FeatureProtocolFeatures), "backend does not offer PROTOCOL_FEATURES")
	s.must(f.Send(wire.SetFeatures, wire.FlagNeedReply, modern(f)), "send %v", wire.SetFeatures)
	s.must(f.Barrier(), "ask after a request whose need_reply bit means nothing")
}
