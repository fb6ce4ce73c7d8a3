// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// programs is what the judge knows of the transfer of programs.
type programs struct {
	nonces []uint64 // of all sessions, the newest last
	offers map[protocol.Digest]*offer
	barred bool // the driver said HELLO to a device without the flag PROGRAMS
}

// offer is an OFFER of the suite.
type offer struct {
	phantom bool // it has another nonce than the driver's: nothing may come of it
	gets    []protocol.Get
	state   protocol.ProgramState
}

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
	j.saw(ruleDigest)
	if r.State == protocol.ProgramActive {
		return breaks(ruleDigest, "an object is in use whose SHA-256 is not the digest of its offer")
	}
	return err
}

// offerOf returns the offer with a digest, or nil. An answer to one of another session is a
// breach.
func (j *judge) offerOf(d protocol.Digest) (*offer, error) {
	o := j.programs.offers[d]
	if o != nil && o.phantom {
		return nil, breaks(ruleSession, "the driver answers an offer of another session")
	}
	return o, nil
}

func (j *judge) accepts(h protocol.Header, body []byte) error {
	p := &j.programs
	j.saw(ruleAccepts)
	if _, err := protocol.DecodeAccepts(body); err != nil {
		return breaks(ruleFields, "%v", err)
	}
	for _, nonce := range append(p.nonces, 0) {
		if nonce == h.Generation {
			return breaks(ruleAccepts, "the nonce %#x of ACCEPTS is 0, or that of an earlier one", nonce)
		}
	}
	p.nonces = append(p.nonces, h.Generation)
	return nil
}

// withoutPrograms plays a device of an older version, which does not know programs.
func withoutPrograms(s *session) error {
	takes := false
	s.locked(func() { takes = s.judge.takes() })
	if !takes {
		return notPossible("the driver takes no programs")
	}
	s.setConfig(func(c *protocol.Config) { c.Flags &^= protocol.ConfigPrograms })
	s.pause() // until the frontend has read it, from which the driver reads it
	err := s.wantHello(ruleWanted)
	s.pause()
	s.setConfig(func(c *protocol.Config) { c.Flags |= protocol.ConfigPrograms })
	s.pause()
	if err != nil {
		return err
	}
	s.locked(func() { s.judge.saw(ruleKnown) })
	return s.wantHello(ruleWanted)
}

// offerPrograms is the scenario about programs.
func offerPrograms(s *session) error {
	takes, before := false, 0
	s.locked(func() { takes, before = s.judge.takes(), len(s.judge.programs.nonces) })
	if !takes {
		return notPossible("the driver takes no programs")
	}
	if err := s.wantHello(ruleWanted); err != nil {
		return err
	}
	err := s.awaitOr(ruleAccepts, "no ACCEPTS came in %v after a HELLO", func() bool {
		return len(s.judge.programs.nonces) > before
	})
	if err != nil {
		return err
	}
	short := false
	s.locked(func() { short = s.judgeBuffers() })
	if short {
		return nil // nothing can be offered
	}
	nonce := uint64(0)
	s.locked(func() { nonce = s.judge.programs.nonces[len(s.judge.programs.nonces)-1] })
	if _, err := s.offer(nonce^1, true); err != nil {
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
	if err == nil {
		s.locked(func() { s.judge.saw(ruleOffer, ruleSession) })
	}
	return err
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
		Digest: OfferedDigest(), Kind: protocol.KindWalk, Size: 1000, Version: 1,
		Name: "conformance",
	}
	if phantom {
		e.Offer.Digest[0]++
	}
	o := &offer{phantom: phantom}
	var err error
	waited := s.awaitOr(ruleUsable, "the driver left no event buffer for %v", func() bool {
		s.judge.programs.offers[e.Offer.Digest] = o
		err = s.putProgram(&e)
		return !errors.Is(err, errNoBuffer)
	})
	return o, errors.Join(waited, err)
}

// deliver answers the GETs for an offer with zeroes. d.mu is held.
func (s *session) deliver(nonce uint64, o *offer) {
	for len(o.gets) > 0 {
		g := o.gets[0]
		e := protocol.ProgramEvent{
			Type: protocol.EventData, Nonce: nonce, Digest: g.Digest, Offset: g.Offset,
			Bytes: make([]byte, min(g.Length, protocol.MinProgramBuffer-protocol.DataHead)),
		}
		if s.putProgram(&e) != nil {
			return
		}
		o.gets = o.gets[1:]
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
