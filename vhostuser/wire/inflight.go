// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// Inflight is the payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD: the part of a
// file that tracks requests in flight, and for how many queues of which size.
type Inflight struct {
	MmapSize, MmapOffset uint64
	NumQueues, QueueSize uint16
}

// SizeInflight is the length of the payload as C compilers lay it out: with
// four bytes of padding, which QEMU sends and expects.
const SizeInflight = 24

// AppendTo appends the encoded payload to b, with its padding.
func (v Inflight) AppendTo(b []byte) []byte {
	b = put64(b, v.MmapSize, v.MmapOffset)
	return put32(b, uint32(v.NumQueues)|uint32(v.QueueSize)<<16, 0)
}

// String prints the fields.
func (v Inflight) String() string {
	return fmt.Sprintf("%d queues of %d: size %#x offset %#x", v.NumQueues, v.QueueSize, v.MmapSize,
		v.MmapOffset)
}

// DecodeInflight decodes an Inflight. It ignores the padding.
func DecodeInflight(p []byte) (Inflight, error) {
	r := reader{b: p}
	v := Inflight{MmapSize: r.u64(), MmapOffset: r.u64()}
	n := r.u32()
	v.NumQueues, v.QueueSize = uint16(n), uint16(n>>16)
	r.u32()
	return v, r.end("inflight description")
}
