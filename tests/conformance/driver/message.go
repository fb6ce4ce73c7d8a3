// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// breach is an error: a message breaks a rule. seen describes how.
type breach struct {
	rule, seen string
}

func (b *breach) Error() string { return b.rule + ": " + b.seen }

func breaks(rule, format string, args ...any) error {
	return &breach{rule, fmt.Sprintf(format, args...)}
}

// message is a message of the driver that the device has not used yet.
type message struct {
	chain  *vhostuser.Chain
	header protocol.Header
	sum    uint32 // of its bytes when it was read
}

// parseHeader decodes the header with package protocol. It finds out which rule a
// fault breaks.
func parseHeader(c *vhostuser.Chain) (protocol.Header, error) {
	if n := c.WritableLen(); n != 0 {
		return protocol.Header{}, breaks(ruleShape, "a message has a device-writable part of %d bytes", n)
	}
	if n := c.ReadableLen(); n < protocol.HeaderSize {
		return protocol.Header{}, breaks(ruleShape,
			"a message has %d bytes, its header alone has %d", n, protocol.HeaderSize)
	}
	var p [protocol.HeaderSize]byte
	if _, err := c.ReadAt(p[:], 0); err != nil {
		return protocol.Header{}, fmt.Errorf("read header: %w", err)
	}
	h, err := protocol.DecodeHeader(p[:])
	refuses := h.Type == protocol.MessageReport && h.Status != protocol.StatusOK
	if refuses && (h.Count != 0 || h.Flags&protocol.FlagLast == 0) {
		return h, breaks(ruleRefusal, "a report with status %v has %d records and flags %#x: % x",
			h.Status, h.Count, h.Flags, p)
	}
	if err != nil {
		return h, breaks(ruleFields, "%v: % x", err, p)
	}
	if want := h.Size(); want != uint64(c.ReadableLen()) {
		return h, breaks(ruleShape, "a message has %d bytes, by its header it has %d: % x",
			c.ReadableLen(), want, p)
	}
	return h, nil
}

// parseHello reads what follows the header of a HELLO.
func parseHello(c *vhostuser.Chain) (protocol.Hello, error) {
	var p [protocol.HelloSize]byte
	if _, err := c.ReadAt(p[:], protocol.HeaderSize); err != nil {
		return protocol.Hello{}, fmt.Errorf("read hello: %w", err)
	}
	hello, err := protocol.DecodeHello(p[:])
	if err != nil {
		return hello, breaks(ruleFields, "%v: % x", err, p[:16])
	}
	return hello, nil
}

// parseTrailer reads the trailer of a report with LAST.
func parseTrailer(h protocol.Header, c *vhostuser.Chain) (protocol.Trailer, error) {
	var p [protocol.TrailerSize]byte
	if _, err := c.ReadAt(p[:], int64(h.Size()-protocol.TrailerSize)); err != nil {
		return protocol.Trailer{}, fmt.Errorf("read trailer: %w", err)
	}
	trailer, err := protocol.DecodeTrailer(p[:])
	if err != nil {
		return trailer, breaks(ruleFields, "%v: % x", err, p)
	}
	return trailer, nil
}

// eachRecord calls f with the records of a report, in order.
func eachRecord(
	h protocol.Header, c *vhostuser.Chain, f func(i uint32, r protocol.Record) error,
) error {
	var p [4096]byte
	for i := uint32(0); i < h.Count; {
		n := min(h.Count-i, uint32(len(p)/protocol.RecordSize))
		part := p[:n*protocol.RecordSize]
		if _, err := c.ReadAt(part, protocol.HeaderSize+int64(i)*protocol.RecordSize); err != nil {
			return fmt.Errorf("read records: %w", err)
		}
		for ; len(part) > 0; part = part[protocol.RecordSize:] {
			if err := f(i, protocol.Record(binary.LittleEndian.Uint64(part))); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// Processors have an instruction for this polynomial.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf returns a checksum of segments of guest memory, which others may write.
func sumOf(segments []vhostuser.Segment) (sum uint32, err error) {
	err = vhostuser.Guard(func() error {
		for _, s := range segments {
			sum = crc32.Update(sum, castagnoli, s.Bytes)
		}
		return nil
	})
	return sum, err
}

// asBreach returns the breach in an error; nil if there is none.
func asBreach(err error) *breach {
	var b *breach
	errors.As(err, &b)
	return b
}
