// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// Types of an IOTLB message.
const (
	IOTLBMiss       = 1
	IOTLBUpdate     = 2
	IOTLBInvalidate = 3
	IOTLBAccessFail = 4
)

// Permissions of an IOTLB message.
const (
	IOTLBRead  = 1
	IOTLBWrite = 2
)

// IOTLB is the payload of IOTLB_MSG in both directions, struct vhost_iotlb_msg
// with its six bytes of padding.
type IOTLB struct {
	// IOVA is the address that the driver uses.
	IOVA, Size uint64
	// UserAddr is the address in the frontend's process.
	UserAddr uint64
	Perm     uint8
	Type     uint8
}

// AppendTo appends the encoded payload to b.
func (v IOTLB) AppendTo(b []byte) []byte {
	return append(put64(b, v.IOVA, v.Size, v.UserAddr), v.Perm, v.Type, 0, 0, 0, 0, 0, 0)
}

// String prints the fields.
func (v IOTLB) String() string {
	return fmt.Sprintf("type %d iova %#x size %#x user %#x perm %d", v.Type, v.IOVA, v.Size,
		v.UserAddr, v.Perm)
}

// DecodeIOTLB decodes an IOTLB. The padding may hold anything.
func DecodeIOTLB(p []byte) (IOTLB, error) {
	r := reader{b: p}
	v := IOTLB{IOVA: r.u64(), Size: r.u64(), UserAddr: r.u64()}
	tail := r.take(8)
	v.Perm, v.Type = tail[0], tail[1]
	return v, r.end("iotlb message")
}
