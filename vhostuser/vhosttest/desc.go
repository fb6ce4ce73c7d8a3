// SPDX-License-Identifier: Apache-2.0

package vhosttest

import "encoding/binary"

// Descriptor flags, VIRTIO 1.2 sections 2.7.5 and 2.8.
const (
	DescNext     = 1
	DescWrite    = 2
	DescIndirect = 4
	// DescAvail and DescUsed are those of packed rings.
	DescAvail = 1 << 7
	DescUsed  = 1 << 15
)

// Desc is a descriptor.
type Desc struct {
	Addr  uint64
	Len   uint32
	Flags uint16
	// Last is the field besides: the next descriptor in a split ring, the
	// buffer id in a packed one.
	Last uint16
}

func (d Desc) appendTo(b []byte, packed bool) []byte {
	third, fourth := d.Flags, d.Last
	if packed {
		third, fourth = fourth, third
	}
	b = binary.LittleEndian.AppendUint64(b, d.Addr)
	b = binary.LittleEndian.AppendUint32(b, d.Len)
	b = binary.LittleEndian.AppendUint16(b, third)
	return binary.LittleEndian.AppendUint16(b, fourth)
}

// EncodeDesc encodes a descriptor of a split ring.
func EncodeDesc(addr uint64, n uint32, flags, next uint16) []byte {
	return Desc{Addr: addr, Len: n, Flags: flags, Last: next}.appendTo(nil, false)
}

// EncodePacked encodes a descriptor of a packed ring.
func EncodePacked(addr uint64, n uint32, id, flags uint16) []byte {
	return Desc{Addr: addr, Len: n, Flags: flags, Last: id}.appendTo(nil, true)
}
