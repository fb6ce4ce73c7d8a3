// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
	"time"
)

// DataHead is the length in bytes of what comes before the bytes of a DATA event.
const DataHead = EventSize + 40

// ProgramEvent is an event about a program (section 9): an [Event] whose Generation is the
// nonce of the session, and a body.
type ProgramEvent struct {
	Type   EventType
	Nonce  uint64
	Digest Digest // as in Offer, in an OFFER
	Offer  Offer  // OFFER only
	Offset uint32 // DATA only: where in the object the bytes lie
	Bytes  []byte // DATA only
	Number uint64 // COUNT and SAMPLE only: the answer has to repeat it
	// Interval is that of a SAMPLE: what the guest uses in this time is hot. It is at most
	// MaxSampleInterval, in whole milliseconds.
	Interval time.Duration
}

// IsProgram says whether events of the type are about programs.
func (t EventType) IsProgram() bool { return t >= EventOffer && t <= EventSample }

// Size returns the length of the encoded event in bytes.
func (e *ProgramEvent) Size() int {
	switch e.Type {
	case EventOffer:
		return EventSize + OfferSize
	case EventData:
		return DataHead + len(e.Bytes)
	case EventCount:
		return EventSize + len(e.Digest) + 8
	case EventSample:
		return EventSize + len(e.Digest) + 16
	}
	return EventSize + len(e.Digest)
}

// Encode writes the event into p, which has at least Size bytes.
func (e *ProgramEvent) Encode(p []byte) {
	p = p[:e.Size()]
	clear(p)
	head := Event{Type: e.Type, Generation: e.Nonce}
	head.Encode(p)
	body := p[EventSize:]
	if e.Type == EventOffer {
		e.Offer.Encode(body)
		return
	}
	copy(body, e.Digest[:])
	switch e.Type {
	case EventCount:
		binary.LittleEndian.PutUint64(body[32:], e.Number)
	case EventSample:
		binary.LittleEndian.PutUint64(body[32:], e.Number)
		binary.LittleEndian.PutUint32(body[40:], uint32(e.Interval.Milliseconds()))
	case EventData:
		binary.LittleEndian.PutUint32(body[32:], e.Offset)
		binary.LittleEndian.PutUint32(body[36:], uint32(len(e.Bytes)))
		copy(body[40:], e.Bytes)
	}
}

// DecodeProgramEvent reads and checks an event about a program. The bytes of DATA are a part
// of p.
func DecodeProgramEvent(p []byte) (ProgramEvent, error) {
	head, err := DecodeEvent(p)
	if err != nil {
		return ProgramEvent{}, err
	}
	e := ProgramEvent{Type: head.Type, Nonce: head.Generation}
	body := p[EventSize:]
	malformed := func() (ProgramEvent, error) {
		return e, fmt.Errorf("decode event %v of %d bytes: %w", e.Type, len(p), ErrMalformed)
	}
	switch {
	case e.Type == EventOffer:
		if e.Offer, err = DecodeOffer(body); err != nil {
			return e, err
		}
		e.Digest = e.Offer.Digest
	case !e.Type.IsProgram() || len(body) < len(e.Digest):
		return malformed()
	default:
		e.Digest = Digest(body)
	}
	switch e.Type {
	case EventCount:
		if len(p) < e.Size() {
			return malformed()
		}
		e.Number = binary.LittleEndian.Uint64(body[32:])
		return e, nil
	case EventSample:
		if len(p) < e.Size() {
			return malformed()
		}
		e.Number = binary.LittleEndian.Uint64(body[32:])
		interval := binary.LittleEndian.Uint32(body[40:])
		e.Interval = time.Duration(interval) * time.Millisecond
		if e.Interval > MaxSampleInterval || binary.LittleEndian.Uint32(body[44:]) != 0 {
			return malformed()
		}
		return e, nil
	case EventData:
	default:
		return e, nil
	}
	if len(p) < DataHead {
		return malformed()
	}
	e.Offset = binary.LittleEndian.Uint32(body[32:])
	length := binary.LittleEndian.Uint32(body[36:])
	if uint64(length) != uint64(len(p)-DataHead) || length == 0 ||
		uint64(e.Offset)+uint64(length) > MaxProgramSize {
		return malformed()
	}
	e.Bytes = body[40:]
	return e, nil
}
