// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// hostility is one way to violate the protocol.
type hostility struct {
	features protocol.Features                        // of the hello
	answer   func(d *driver, generation uint64) error // nil: none
}

// cases returns all hostilities by name.
func cases() map[string]hostility {
	return map[string]hostility{
		"silent": {},
		"started-and-silent": {answer: func(d *driver, g uint64) error {
			return d.post(header(protocol.Header{Type: protocol.MessageStarted, Generation: g}))
		}},
		"poison": {features: protocol.FeaturePagePoison},
		// This is allowed: blocks may come in any order.
		"descending": {answer: func(d *driver, g uint64) error {
			records := d.ownRecords()
			slices.Reverse(records)
			return d.post(report(g, records, uint64(len(records))))
		}},
		"overlapping": {answer: func(d *driver, g uint64) error {
			r := d.ownRecords()[0]
			return d.post(report(g, []protocol.Record{r, r}, 2))
		}},
		"overlapping-orders": {answer: func(d *driver, g uint64) error {
			records := []protocol.Record{protocol.MakeRecord(0x8000, 4), protocol.MakeRecord(0x8008, 3)}
			return d.post(report(g, records, 2))
		}},
		"unaligned": {answer: func(d *driver, g uint64) error {
			return d.post(report(g, []protocol.Record{protocol.MakeRecord(0x8001, 3)}, 1))
		}},
		"out-of-range": {answer: func(d *driver, g uint64) error {
			records := append(d.ownRecords(), protocol.MakeRecord(1<<40, 0))
			return d.post(report(g, records, uint64(len(records))))
		}},
		"end-out-of-range": {answer: func(d *driver, g uint64) error {
			return d.post(report(g, []protocol.Record{protocol.MakeRecord(0, 40)}, 1))
		}},
		"largest-order": {answer: func(d *driver, g uint64) error {
			return d.post(report(g, []protocol.Record{protocol.MakeRecord(0, 63)}, 1))
		}},
		"unknown-class": {answer: func(d *driver, g uint64) error {
			return d.post(report(g, []protocol.Record{d.ownRecords()[0] | 1<<6}, 1))
		}},
		"wrong-total": {answer: func(d *driver, g uint64) error {
			return d.post(report(g, d.ownRecords()[:4], 5))
		}},
		"short": {answer: func(d *driver, g uint64) error {
			m := report(g, d.ownRecords()[:4], 4)
			return d.post(m[:len(m)-1])
		}},
		"long": {answer: func(d *driver, g uint64) error {
			return d.post(append(report(g, d.ownRecords()[:4], 4), 0))
		}},
		"page-shift": {answer: func(d *driver, g uint64) error {
			m := report(g, nil, 0)
			m[20] = 63
			return d.post(m)
		}},
		"garbage": {answer: func(d *driver, g uint64) error {
			return d.post(bytes.Repeat([]byte{0xa5}, 512))
		}},
		"yesterday": {answer: func(d *driver, g uint64) error {
			records := d.ownRecords()
			return d.post(report(g-1, records, uint64(len(records))))
		}},
		"tomorrow": {answer: func(d *driver, g uint64) error {
			records := d.ownRecords()
			return d.post(report(g+1, records, uint64(len(records))))
		}},
		"endless": {answer: endless},
	}
}

// endless reports the same blocks again and again, which RESUMED allows, and never
// sends LAST. The device has to give up because of the number of records.
func endless(d *driver, g uint64) error {
	var records []protocol.Record
	for len(records) < 500 {
		records = append(records, d.ownRecords()...)
	}
	m := header(protocol.Header{
		Type: protocol.MessageReport, Flags: protocol.FlagResumed, Count: 500, Generation: g,
	})
	for _, r := range records[:500] {
		m = binary.LittleEndian.AppendUint64(m, uint64(r))
	}
	// More records than any test guest has pages.
	for range 4 << 20 / 500 {
		if err := d.post(m); err != nil {
			return err
		}
	}
	return nil
}

// header encodes the header of a message, with pages of 4 KiB.
func header(h protocol.Header) []byte {
	h.PageShift = protocol.MinPageShift
	p := make([]byte, protocol.HeaderSize)
	h.Encode(p)
	return p
}

func hello(f protocol.Features) []byte {
	body := make([]byte, protocol.HelloSize)
	(&protocol.Hello{Features: f, MaxOrder: 10, Release: "hostile"}).Encode(body)
	return append(header(protocol.Header{Type: protocol.MessageHello}), body...)
}

// report is a whole answer in one message, whose trailer says total.
func report(g uint64, records []protocol.Record, total uint64) []byte {
	m := header(protocol.Header{
		Type: protocol.MessageReport, Flags: protocol.FlagLast,
		Count: uint32(len(records)), Generation: g,
	})
	for _, r := range records {
		m = binary.LittleEndian.AppendUint64(m, uint64(r))
	}
	tail := make([]byte, protocol.TrailerSize)
	(&protocol.Trailer{Records: total}).Encode(tail)
	return append(m, tail...)
}
