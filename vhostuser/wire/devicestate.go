// SPDX-License-Identifier: Apache-2.0

package wire

import "fmt"

// Direction says which way a device state goes.
type Direction uint32

// Directions of a transfer.
const (
	// Save is from the backend to the frontend, at the source.
	Save Direction = 0
	// Load is from the frontend to the backend, at the destination.
	Load Direction = 1
)

// String names the direction.
func (d Direction) String() string {
	switch d {
	case Save:
		return "save"
	case Load:
		return "load"
	}
	return fmt.Sprintf("direction %d", uint32(d))
}

// PhaseStopped is the only phase of a migration in which device states are
// transferred: every ring is stopped.
const PhaseStopped = 0

// StateNoFD, in the reply to SET_DEVICE_STATE_FD, says that the frontend's
// descriptor is used: none comes with the reply.
const StateNoFD = 1 << 8

// DeviceState is the payload of SET_DEVICE_STATE_FD.
type DeviceState struct {
	Direction Direction
	Phase     uint32
}

// AppendTo appends the encoded payload to b.
func (v DeviceState) AppendTo(b []byte) []byte { return put32(b, uint32(v.Direction), v.Phase) }

// String prints the fields.
func (v DeviceState) String() string { return fmt.Sprintf("%v in phase %d", v.Direction, v.Phase) }

// DecodeDeviceState decodes a DeviceState.
func DecodeDeviceState(p []byte) (DeviceState, error) {
	r := reader{b: p}
	v := DeviceState{Direction: Direction(r.u32()), Phase: r.u32()}
	return v, r.end("device state transfer")
}
