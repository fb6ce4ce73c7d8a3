// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// UUID names a shared object, as VhostUserShared does: its first three
// components are big-endian, as in its text.
type UUID [16]byte

// AppendTo appends the encoded payload to b.
func (v UUID) AppendTo(b []byte) []byte { return append(b, v[:]...) }

// String prints the UUID in the customary groups.
func (v UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:])
}

// DecodeUUID decodes a UUID.
func DecodeUUID(p []byte) (UUID, error) {
	r := reader{b: p}
	v := UUID(r.take(len(UUID{})))
	return v, r.end("uuid")
}

// VringArea is the payload of VRING_HOST_NOTIFIER_MSG.
type VringArea struct {
	VringFD
	// Size and Offset say which part of the descriptor's file it is.
	Size, Offset uint64
}

// AppendTo appends the encoded payload to b.
func (v VringArea) AppendTo(b []byte) []byte {
	return put64(v.VringFD.AppendTo(b), v.Size, v.Offset)
}

// String prints the fields.
func (v VringArea) String() string {
	return fmt.Sprintf("%v size %#x offset %#x", v.VringFD, v.Size, v.Offset)
}

// DecodeVringArea decodes a VringArea.
func DecodeVringArea(p []byte) (VringArea, error) {
	r := reader{b: p}
	fd, err := DecodeVringFD(r.take(8))
	if err != nil {
		return VringArea{}, err
	}
	v := VringArea{VringFD: fd, Size: r.u64(), Offset: r.u64()}
	return v, r.end("vring area")
}
