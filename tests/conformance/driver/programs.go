// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// programs is what the judge knows of the transfer of programs.
type programs struct {
	nonces []uint64 // of all sessions, the newest last
	after  int      // how many HELLOs had come when the newest session began
	offers map[protocol.Digest]*offer
	barred bool   // the driver said HELLO to a device without the flag PROGRAMS
	kinds  uint32 // of the newest ACCEPTS

	inquiries map[uint64]*inquiry // of the suite, by number
}

// offeredSize is the size of the object that the suite offers: one DATA holds it.
const offeredSize = 400

// offer is an OFFER of the suite.
type offer struct {
	phantom bool // it has another nonce than the driver's: nothing may come of it
	gets    []protocol.Get
	state   protocol.ProgramState
	feigned map[uint32]bool // where DATA of another session began
	missing []bool          // bytes that were not delivered
}

// complete says whether all of the object was delivered.
func (o *offer) complete() bool { return !slices.Contains(o.missing, true) }

// takes says whether the driver takes programs.
func (j *judge) takes() bool {
	return j.driver != nil && j.driver.Features&protocol.FeaturePrograms != 0
}

// aboutPrograms judges a message about programs.
func (j *judge) aboutPrograms(h protocol.Header, c *vhostuser.Chain) error {
	if !j.takes() {
		return breaks(ruleFields, "%v comes of a driver that has not said PROGRAMS", h)
	}
	if j.programs.barred {
		return breaks(ruleKnown, "%v comes to a device without the flag PROGRAMS", h)
	}
	body := make([]byte, h.Size()-protocol.HeaderSize)
	if _, err := c.ReadAt(body, protocol.HeaderSize); err != nil {
		return fmt.Errorf("read %v: %w", h.Type, err)
	}
	switch h.Type {
	case protocol.MessageAccepts:
		return j.accepts(h, body)
	case protocol.MessageGet:
		g, err := protocol.DecodeGet(body)
		if err != nil {
			return breaks(ruleFields, "%v", err)
		}
		o, err := j.offerOf(g.Digest)
		if o != nil {
			o.gets = append(o.gets, g)
		}
		return err
	case protocol.MessageCensus:
		return j.census(h, body)
	case protocol.MessageSampled:
		return j.sampled(h, body)
	}
	r, err := protocol.DecodeProgramReport(body)
	if err != nil {
		return breaks(ruleFields, "%v", err)
	}
	j.note("driver: program %.8v is %v, %q", r.Digest, r.State, r.Reason)
	o, err := j.offerOf(r.Digest)
	if o == nil {
		return err
	}
	o.state = r.State
	if o.complete() {
		j.saw(ruleDigest)
	} else if len(o.feigned) > 0 && r.State != protocol.ProgramFetching {
		return breaks(ruleSession, "a program is %v whose bytes came in another session", r.State)
	}
	if r.State == protocol.ProgramActive {
		return breaks(ruleDigest, "an object is in use whose SHA-256 is not the digest of its offer")
	}
	return err
}

// offerOf returns the offer with a digest, or nil. An answer to one of another session, or to
// a WITHDRAW of another session, is a breach.
func (j *judge) offerOf(d protocol.Digest) (*offer, error) {
	o := j.programs.offers[d]
	if o != nil && o.phantom {
		return nil, breaks(ruleSession, "the driver answers an event of another session")
	}
	return o, nil
}

func (j *judge) accepts(h protocol.Header, body []byte) error {
	p := &j.programs
	j.saw(ruleAccepts)
	a, err := protocol.DecodeAccepts(body)
	if err != nil {
		return breaks(ruleFields, "%v", err)
	}
	p.kinds = a.Kinds
	for _, nonce := range append(p.nonces, 0) {
		if nonce == h.Generation {
			return breaks(ruleAccepts, "the nonce %#x of ACCEPTS is 0, or that of an earlier one", nonce)
		}
	}
	p.nonces, p.after = append(p.nonces, h.Generation), j.hellos
	return nil
}

// withoutPrograms plays a device of an older version, which does not know programs.
func withoutPrograms(s *session) error {
	takes := false
	s.locked(func() { takes = s.judge.takes() })
	if !takes {
		return notPossible("the driver takes no programs")
	}
	err := s.flip(protocol.ConfigPrograms)
	if err == nil {
		err = s.wantHello(ruleWanted)
		s.pause()
	}
	if err := errors.Join(err, s.flip(protocol.ConfigPrograms)); err != nil {
		return err
	}
	s.locked(func() { s.judge.saw(ruleKnown) })
	return s.wantHello(ruleWanted)
}

// flip changes a flag of the configuration, and waits until the frontend has read it: from
// there the driver reads it.
func (s *session) flip(flag uint32) error {
	s.setConfig(func(c *protocol.Config) { c.Flags ^= flag })
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Patience)
	defer cancel()
	if s.await(ctx, func() bool { return s.told == s.config.Flags }) != nil {
		return notPossible("the frontend does not read the configuration when it has changed")
	}
	s.pause()
	return nil
}

// offerPrograms is the scenario about programs.
func offerPrograms(s *session) error {
	takes, short := false, false
	s.locked(func() { takes = s.judge.takes() })
	if !takes {
		return notPossible("the driver takes no programs")
	}
	nonce, err := s.newSession()
	if err != nil {
		return err
	}
	s.locked(func() { short = s.judgeBuffers() })
	if short {
		return nil // nothing can be offered
	}
	if _, err := s.offer(nonce^1, true); err != nil {
		return err
	}
	feigned := protocol.Digest{1}
	s.locked(func() { s.judge.programs.offers[feigned] = &offer{phantom: true} })
	if err := s.withdraw(nonce^1, feigned, &offer{}); err != nil {
		return err
	}
	o, err := s.offer(nonce, false)
	if err != nil {
		return err
	}
	err = s.awaitOr(ruleOffer, "no PROGRAM with a final state came in %v after an OFFER", func() bool {
		s.deliver(nonce, o)
		return o.state.Final()
	})
	if err != nil {
		return err
	}
	s.locked(func() {
		s.judge.saw(ruleOffer, ruleSession)
		s.judge.skip(fmt.Sprintf("the driver refuses the offer before it has all of the object:"+
			" have its policy pin the digest %v", OfferedDigest()), ruleDigest)
	})
	if err := s.withdraw(nonce, OfferedDigest(), o); err != nil {
		return err
	}
	return s.awaitOr(ruleOffer, "no PROGRAM with the state WITHDRAWN came in %v after a WITHDRAW",
		func() bool { return o.state == protocol.ProgramWithdrawn })
}

// newSession has the driver begin a session, and returns its nonce. The ACCEPTS of an earlier HELLO
// may still be on its way.
func (s *session) newSession() (nonce uint64, err error) {
	hello := 0
	s.locked(func() { hello = s.judge.hellos + 1 })
	if err := s.wantHello(ruleWanted); err != nil {
		return 0, err
	}
	err = s.awaitOr(ruleAccepts, "no ACCEPTS came in %v after a HELLO", func() bool {
		p := &s.judge.programs
		if p.after < hello {
			return false
		}
		nonce = p.nonces[len(p.nonces)-1]
		return true
	})
	return nonce, err
}

// withdraw sends WITHDRAW of an offer, whose state counts from then on.
func (s *session) withdraw(nonce uint64, d protocol.Digest, o *offer) error {
	return s.whenThereIsRoom(&protocol.ProgramEvent{
		Type: protocol.EventWithdraw, Nonce: nonce, Digest: d,
	}, func() { o.state = 0 })
}

// whenThereIsRoom sends an event as soon as there is a buffer. prepare is called before, with
// d.mu held.
func (s *session) whenThereIsRoom(e *protocol.ProgramEvent, prepare func()) error {
	var err error
	waited := s.awaitOr(ruleUsable, "the driver left no event buffer for %v", func() bool {
		prepare()
		err = s.putProgram(e)
		return !errors.Is(err, errNoBuffer)
	})
	return errors.Join(waited, err)
}

// judgeBuffers judges the lengths of the event buffers, and says whether one is too short.
// d.mu is held.
func (s *session) judgeBuffers() (short bool) {
	s.collect()
	for _, b := range s.buffers {
		s.judge.saw(ruleRoom)
		n := b.chain.WritableLen()
		if n >= protocol.EventSize && n < protocol.MinProgramBuffer {
			s.judge.broke(ruleRoom, "an event buffer of a driver that takes programs has %d bytes", n)
			short = true
		}
	}
	return short
}

// OfferedDigest is the digest of the object that the suite offers, and for which it delivers
// another one. A driver whose policy pins it fetches that, and has to find out.
func OfferedDigest() protocol.Digest { return sha256.Sum256([]byte("fbpp-conform")) }

// offer sends an OFFER of an object that nobody has.
func (s *session) offer(nonce uint64, phantom bool) (*offer, error) {
	e := protocol.ProgramEvent{Type: protocol.EventOffer, Nonce: nonce}
	e.Offer = protocol.Offer{
		Digest: OfferedDigest(), Kind: protocol.KindWalk, Size: offeredSize, Version: 1,
		Name: "conformance",
	}
	if phantom {
		e.Offer.Digest[0]++
	}
	o := &offer{phantom: phantom, feigned: make(map[uint32]bool)}
	o.missing = slices.Repeat([]bool{true}, offeredSize)
	return o, s.whenThereIsRoom(&e, func() { s.judge.programs.offers[e.Offer.Digest] = o })
}

// deliver answers the GETs for an offer with zeroes. The first answer from an offset on is of
// another session: the driver has to ask again. d.mu is held.
func (s *session) deliver(nonce uint64, o *offer) {
	for len(o.gets) > 0 {
		g := o.gets[0]
		e := protocol.ProgramEvent{
			Type: protocol.EventData, Nonce: nonce, Digest: g.Digest, Offset: g.Offset,
			Bytes: make([]byte, min(g.Length, protocol.MinProgramBuffer-protocol.DataHead)),
		}
		past := uint64(g.Offset)+uint64(g.Length) > offeredSize
		feign := !past && !o.feigned[g.Offset]
		switch {
		case past: // [FBPP-PROG-6]
			e.Type, e.Offset, e.Bytes = protocol.EventGone, 0, nil
		case feign:
			e.Nonce ^= 1
		}
		if s.putProgram(&e) != nil {
			return
		}
		o.gets = o.gets[1:]
		if feign {
			o.feigned[g.Offset] = true
		} else {
			clear(o.missing[min(g.Offset, offeredSize):][:len(e.Bytes)])
		}
	}
}

// putProgram sends an event about programs. d.mu is held.
func (s *session) putProgram(e *protocol.ProgramEvent) error {
	p := make([]byte, e.Size())
	e.Encode(p)
	err := s.putBytes(p, protocol.MinProgramBuffer, use{})
	if err == nil {
		s.judge.note("device: %v of session %#x", e.Type, e.Nonce)
		s.interrupt(s.eventq)
	}
	return err
}

// awaitOr waits until what is so. A driver that lets that take too long breaks rule; format
// has a verb for how long it was waited.
func (s *session) awaitOr(rule, format string, what func() bool) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Patience)
	defer cancel()
	stopped := false
	err := s.await(ctx, func() bool {
		stopped = s.eventq == nil || s.reportq == nil
		return stopped || what()
	})
	switch {
	case err == nil && stopped:
		return errStopped
	case err == nil:
		return nil
	}
	defer func(blame string) { s.blame = blame }(s.blame)
	s.blame = rule
	return s.gaveUp(format, s.c.Patience)
}
