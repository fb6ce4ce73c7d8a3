// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// SaveState returns the state of the device, whose queues are stopped, as the
// source of a migration does. DEVICE_STATE must have been negotiated. Timeout
// bounds the transfer as a whole.
func (f *Frontend) SaveState() ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("save device state: %w", err)
	}
	defer r.Close()
	err = f.SetStateFD(wire.Save, w)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	err = r.SetReadDeadline(time.Now().Add(f.Timeout))
	var state []byte
	if err == nil {
		state, err = io.ReadAll(r)
	}
	if err != nil {
		return nil, fmt.Errorf("save device state: %w", inTime(err))
	}
	return state, f.CheckState()
}

// LoadState gives the device a state, as the destination does before it starts
// the queues. Timeout bounds the transfer as a whole.
func (f *Frontend) LoadState(state []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("load device state: %w", err)
	}
	err = f.SetStateFD(wire.Load, r)
	_ = r.Close()
	if err == nil {
		err = w.SetWriteDeadline(time.Now().Add(f.Timeout))
	}
	if err == nil {
		_, err = w.Write(state)
	}
	// An error of the device's shows here as a broken pipe, and in the check.
	_ = w.Close()
	if _, refused := err.(*Refused); refused {
		return err
	}
	if err = inTime(err); errors.Is(err, ErrTimeout) {
		return fmt.Errorf("load device state: %w", err)
	}
	return f.CheckState()
}

// inTime makes ErrTimeout of a deadline that has passed.
func inTime(err error) error {
	if isTimeout(err) {
		return ErrTimeout
	}
	return err
}

// SetStateFD begins a transfer through file, which stays the caller's.
func (f *Frontend) SetStateFD(dir wire.Direction, file *os.File) error {
	v := wire.DeviceState{Direction: dir, Phase: wire.PhaseStopped}
	m, err := f.Ask(wire.SetDeviceStateFD, v.AppendTo(nil), int(file.Fd()))
	if err != nil {
		return err
	}
	defer m.Close()
	status, err := wire.DecodeU64(m.Payload)
	switch {
	case err != nil:
		return err
	case status&0xff != 0:
		return &Refused{Request: wire.SetDeviceStateFD, Status: status}
	case status&wire.StateNoFD == 0 || len(m.FDs) != 0:
		return fmt.Errorf("set device state fd: backend has a channel of its own, which is not supported")
	}
	return nil
}

// CheckState asks whether the transfer, which has ended, was successful.
func (f *Frontend) CheckState() error {
	status, err := f.AskU64(wire.CheckDeviceState)
	if err == nil && status != 0 {
		err = &Refused{Request: wire.CheckDeviceState, Status: wire.U64(status)}
	}
	return err
}
