// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
)

// Lengths of the parts of a message in bytes.
const (
	HeaderSize  = 32
	TrailerSize = 32
)

// Limits of a header's page shift: pages of 4 KiB to 64 KiB.
const (
	MinPageShift = 12
	MaxPageShift = 16
)

// MessageType tells what a message on reportq is (section 7).
type MessageType uint16

// The messages.
const (
	MessageHello   MessageType = 1
	MessageStarted MessageType = 2
	MessageReport  MessageType = 3
	// Those about programs (section 9), of drivers with FeaturePrograms.
	MessageAccepts MessageType = 4
	MessageGet     MessageType = 5
	MessageProgram MessageType = 6
	MessageCensus  MessageType = 7
	MessageSampled MessageType = 8

	lastMessage = MessageSampled
)

// String implements fmt.Stringer.
func (t MessageType) String() string {
	switch t {
	case MessageHello:
		return "hello"
	case MessageStarted:
		return "started"
	case MessageReport:
		return "report"
	case MessageAccepts:
		return "accepts"
	case MessageGet:
		return "get"
	case MessageProgram:
		return "program"
	case MessageCensus:
		return "census"
	case MessageSampled:
		return "sampled"
	}
	return fmt.Sprintf("message(%d)", uint16(t))
}

// Flags of a REPORT's header.
const (
	FlagLast      = 1 << 0 // the last message of the request; a trailer follows
	FlagTruncated = 1 << 1 // some free blocks are not in the report
	FlagResumed   = 1 << 2 // the walk released a lock in a zone: blocks may repeat

	reportFlags = FlagLast | FlagTruncated | FlagResumed
)

// Status says whether a driver reports, and if not, why.
type Status uint32

// The statuses of HELLO and of a LAST report.
const (
	StatusOK              Status = 0
	StatusContentMatters  Status = 1 // the guest checks what is in its free pages
	StatusUnsupported     Status = 2 // the kernel lacks something
	StatusLockdown        Status = 3 // kernel memory must not be read
	StatusFailed          Status = 4
	firstUnassignedStatus Status = 5
)

// String implements fmt.Stringer.
func (s Status) String() string {
	switch s {
	case StatusOK:
		return "ok"
	case StatusContentMatters:
		return "content-matters"
	case StatusUnsupported:
		return "unsupported"
	case StatusLockdown:
		return "lockdown"
	case StatusFailed:
		return "failed"
	}
	return fmt.Sprintf("status(%d)", uint32(s))
}

// Header begins every message.
type Header struct {
	Type       MessageType
	Flags      uint16
	Count      uint32 // records that follow
	Generation uint64 // the request this belongs to; 0 in HELLO; of programs: the nonce
	Status     Status
	PageShift  uint8 // log2 of the guest's base page size
}

// Encode writes the header into p, which has at least HeaderSize bytes.
func (h *Header) Encode(p []byte) {
	_ = p[HeaderSize-1]
	le := binary.LittleEndian
	le.PutUint16(p[0:], uint16(h.Type))
	le.PutUint16(p[2:], h.Flags)
	le.PutUint32(p[4:], h.Count)
	le.PutUint64(p[8:], h.Generation)
	le.PutUint32(p[16:], uint32(h.Status))
	le.PutUint32(p[20:], uint32(h.PageShift))
	le.PutUint64(p[24:], 0)
}

// DecodeHeader reads and checks a header. The error names the wrong field.
func DecodeHeader(p []byte) (Header, error) {
	if len(p) < HeaderSize {
		return Header{}, fmt.Errorf("decode message header: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	h := Header{
		Type:       MessageType(le.Uint16(p[0:])),
		Flags:      le.Uint16(p[2:]),
		Count:      le.Uint32(p[4:]),
		Generation: le.Uint64(p[8:]),
		Status:     Status(le.Uint32(p[16:])),
		PageShift:  p[20],
	}
	switch {
	case h.Type < MessageHello || h.Type > lastMessage:
		return h, fmt.Errorf("decode message header: unknown type %d: %w", h.Type, ErrMalformed)
	case p[21]|p[22]|p[23] != 0 || le.Uint64(p[24:]) != 0:
		return h, fmt.Errorf("decode %v header: reserved field is not 0: %w", h.Type, ErrMalformed)
	case h.PageShift < MinPageShift || h.PageShift > MaxPageShift:
		return h, fmt.Errorf("decode %v header: page shift %d: %w", h.Type, h.PageShift, ErrMalformed)
	case h.Status >= firstUnassignedStatus:
		return h, fmt.Errorf("decode %v header: unknown status %d: %w", h.Type, h.Status, ErrMalformed)
	case h.Type != MessageReport && (h.Count != 0 || h.Flags != 0):
		return h, fmt.Errorf("decode %v header: count %d and flags %#x in a message without records: %w",
			h.Type, h.Count, h.Flags, ErrMalformed)
	case h.Type != MessageHello && h.Type != MessageReport && h.Status != StatusOK:
		return h, fmt.Errorf("decode %v header: status %v: %w", h.Type, h.Status, ErrMalformed)
	case h.Flags&^reportFlags != 0:
		return h, fmt.Errorf("decode %v header: unknown flags %#x: %w", h.Type, h.Flags, ErrMalformed)
	case h.Type == MessageReport && h.Status != StatusOK && (h.Count != 0 || h.Flags&FlagLast == 0):
		return h, fmt.Errorf("decode report header: status %v with %d records and flags %#x: %w",
			h.Status, h.Count, h.Flags, ErrMalformed)
	}
	return h, nil
}

// Size returns the length in bytes of a whole message with this header.
func (h *Header) Size() uint64 {
	switch h.Type {
	case MessageHello:
		return HeaderSize + HelloSize
	case MessageReport:
		size := HeaderSize + uint64(h.Count)*RecordSize
		if h.Flags&FlagLast != 0 {
			size += TrailerSize
		}
		return size
	case MessageAccepts:
		return HeaderSize + AcceptsSize
	case MessageGet:
		return HeaderSize + GetSize
	case MessageProgram:
		return HeaderSize + ProgramReportSize
	case MessageCensus:
		return HeaderSize + CensusReportSize
	case MessageSampled:
		return HeaderSize + SampleReportSize
	}
	return HeaderSize
}

// IsProgram says whether messages of the type are about programs.
func (t MessageType) IsProgram() bool { return t >= MessageAccepts && t <= lastMessage }

// String implements fmt.Stringer.
func (h Header) String() string {
	return fmt.Sprintf("%v generation=%d count=%d flags=%#x status=%v page-shift=%d",
		h.Type, h.Generation, h.Count, h.Flags, h.Status, h.PageShift)
}

// Trailer ends the LAST report of a request (section 7.3).
type Trailer struct {
	Records   uint64 // all records of the request
	WalkUS    uint32 // time spent walking, microseconds
	HoldMaxUS uint32 // longest hold of one lock, microseconds
	Holds     uint32
	LeftOut   uint32 // blocks left out, at least this many
	// Dropped is the cache that was dropped, in the guest's pages, and DropUS the time for
	// it in microseconds. Both are 0 where the event did not ask for it [FBPP-DROP-3].
	Dropped uint32
	DropUS  uint32
}

// Encode writes the trailer into p, which has at least TrailerSize bytes.
func (t *Trailer) Encode(p []byte) {
	_ = p[TrailerSize-1]
	le := binary.LittleEndian
	le.PutUint64(p[0:], t.Records)
	le.PutUint32(p[8:], t.WalkUS)
	le.PutUint32(p[12:], t.HoldMaxUS)
	le.PutUint32(p[16:], t.Holds)
	le.PutUint32(p[20:], t.LeftOut)
	le.PutUint32(p[24:], t.Dropped)
	le.PutUint32(p[28:], t.DropUS)
}

// DecodeTrailer reads a trailer.
func DecodeTrailer(p []byte) (Trailer, error) {
	le := binary.LittleEndian
	if len(p) < TrailerSize {
		return Trailer{}, fmt.Errorf("decode trailer: %d bytes: %w", len(p), ErrMalformed)
	}
	return Trailer{
		Records:   le.Uint64(p[0:]),
		WalkUS:    le.Uint32(p[8:]),
		HoldMaxUS: le.Uint32(p[12:]),
		Holds:     le.Uint32(p[16:]),
		LeftOut:   le.Uint32(p[20:]),
		Dropped:   le.Uint32(p[24:]),
		DropUS:    le.Uint32(p[28:]),
	}, nil
}
