// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
)

// HeaderSize is the length of a message's header in bytes.
const HeaderSize = 12

// MaxPayload bounds the payload of a message. The longest one of the protocol
// is SET_CONFIG's, with 268 bytes; private messages may be longer.
const MaxPayload = 4096

// Header flags.
const (
	// VersionMask covers the protocol version, which is Version.
	VersionMask = 0x3
	// Version is the only version there is.
	Version = 0x1
	// FlagReply marks a reply.
	FlagReply = 1 << 2
	// FlagNeedReply asks for a REPLY_ACK.
	FlagNeedReply = 1 << 3

	// ReplyFlags are the flags of every reply.
	ReplyFlags = Version | FlagReply
)

// Header is the header of a message in either direction. Request is a Request
// or a BackendRequest, according to the socket.
type Header struct {
	Request, Flags, Size uint32
}

// AppendTo appends the encoded header to b.
func (h Header) AppendTo(b []byte) []byte { return put32(b, h.Request, h.Flags, h.Size) }

// NeedReply says whether the sender asks for a REPLY_ACK.
func (h Header) NeedReply() bool { return h.Flags&FlagNeedReply != 0 }

// String prints the header, taking it for a frontend's message or its reply.
func (h Header) String() string {
	return fmt.Sprintf("%v flags %#x size %d", Request(h.Request), h.Flags, h.Size)
}

// CheckRequest checks what can be checked of a request's header alone. After
// an error the stream cannot be trusted any more.
func (h Header) CheckRequest() error {
	switch {
	case h.Flags&VersionMask != Version:
		return fmt.Errorf("check header: version %d is not %d (%v)", h.Flags&VersionMask, Version, h)
	case h.Flags&FlagReply != 0:
		return fmt.Errorf("check header: reply instead of a request (%v)", h)
	case h.Size > MaxPayload:
		return fmt.Errorf("check header: payload is longer than %d bytes (%v)", MaxPayload, h)
	}
	return nil
}

func decodeHeader(b *[HeaderSize]byte) Header {
	return Header{
		Request: binary.LittleEndian.Uint32(b[0:]),
		Flags:   binary.LittleEndian.Uint32(b[4:]),
		Size:    binary.LittleEndian.Uint32(b[8:]),
	}
}
