// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
)

// EventSize is the length of an event in bytes.
const EventSize = 32

// EventType tells what an event asks for (section 6).
type EventType uint16

// The events.
const (
	EventReportFree EventType = 1 // a migration begins: report free blocks
	EventCancel     EventType = 2 // request Generation is cancelled
	EventChanged    EventType = 3 // something else changed: see Flags

	// Those about programs (section 9) are longer: see [ProgramEvent].
	EventOffer    EventType = 4 // the host has a program
	EventData     EventType = 5 // a part of its object
	EventGone     EventType = 6 // there is no such program, or no such part
	EventWithdraw EventType = 7 // the program is to be taken out of use
	EventCount    EventType = 8 // the program, a census, is to count
	EventSample   EventType = 9 // the program, a sampler, is to look at what the guest uses
)

// String implements fmt.Stringer.
func (t EventType) String() string {
	switch t {
	case EventReportFree:
		return "report-free"
	case EventCancel:
		return "cancel"
	case EventChanged:
		return "changed"
	case EventOffer:
		return "offer"
	case EventData:
		return "data"
	case EventGone:
		return "gone"
	case EventWithdraw:
		return "withdraw"
	case EventCount:
		return "count"
	case EventSample:
		return "sample"
	}
	return fmt.Sprintf("event(%d)", uint16(t))
}

// EventHelloWanted is the flag of EventChanged that asks for another HELLO.
const EventHelloWanted = 1 << 0

// EventDropCache is the flag of EventReportFree that asks to drop cold cache first. Only a
// driver with FeatureDropCache may get it [FBPP-DROP-1].
const EventDropCache = 1 << 0

// Event is what the device writes into a buffer of eventq.
type Event struct {
	Type          EventType
	Flags         uint16
	BudgetUS      uint32
	Generation    uint64
	DeadlineMS    uint32 // time left for the driver, milliseconds; 0: unknown
	BudgetEntries uint32
	// DropMiB and DropMS bound what is dropped, in MiB, and the time for it, in
	// milliseconds. They are 0 without EventDropCache [FBPP-DROP-2].
	DropMiB uint32
	DropMS  uint32
}

// DropsCache says whether the event asks to drop cold cache.
func (e *Event) DropsCache() bool {
	return e.Type == EventReportFree && e.Flags&EventDropCache != 0
}

// Encode writes the event into p, which has at least EventSize bytes.
func (e *Event) Encode(p []byte) {
	_ = p[EventSize-1]
	le := binary.LittleEndian
	le.PutUint16(p[0:], uint16(e.Type))
	le.PutUint16(p[2:], e.Flags)
	le.PutUint32(p[4:], e.BudgetUS)
	le.PutUint64(p[8:], e.Generation)
	le.PutUint32(p[16:], e.DeadlineMS)
	le.PutUint32(p[20:], e.BudgetEntries)
	le.PutUint32(p[24:], e.DropMiB)
	le.PutUint32(p[28:], e.DropMS)
}

// DecodeEvent reads an event. An unknown type is no error: a driver ignores it
// [FBPP-EV-5].
func DecodeEvent(p []byte) (Event, error) {
	if len(p) < EventSize {
		return Event{}, fmt.Errorf("decode event: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	return Event{
		Type:          EventType(le.Uint16(p[0:])),
		Flags:         le.Uint16(p[2:]),
		BudgetUS:      le.Uint32(p[4:]),
		Generation:    le.Uint64(p[8:]),
		DeadlineMS:    le.Uint32(p[16:]),
		BudgetEntries: le.Uint32(p[20:]),
		DropMiB:       le.Uint32(p[24:]),
		DropMS:        le.Uint32(p[28:]),
	}, nil
}

// String implements fmt.Stringer.
func (e Event) String() string {
	text := fmt.Sprintf("%v generation=%d flags=%#x deadline=%dms budget=%dus/%d",
		e.Type, e.Generation, e.Flags, e.DeadlineMS, e.BudgetUS, e.BudgetEntries)
	if e.DropsCache() {
		text += fmt.Sprintf(" drop=%dMiB/%dms", e.DropMiB, e.DropMS)
	}
	return text
}
