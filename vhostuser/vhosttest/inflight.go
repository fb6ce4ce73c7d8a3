// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Inflight is the memory in which backends track requests in flight. The
// frontend keeps it from one backend to the next.
type Inflight struct {
	// Desc says what the memory is for.
	Desc wire.Inflight
	// FD is the file. It belongs to the Inflight.
	FD int
}

// GetInflight asks the backend for memory for so many queues of a size, as QEMU
// does before the first start. Features must have been negotiated.
func (f *Frontend) GetInflight(queues, size int) (*Inflight, error) {
	want := wire.Inflight{NumQueues: uint16(queues), QueueSize: uint16(size)}
	m, err := f.Ask(wire.GetInflightFD, want.AppendTo(nil))
	if err != nil {
		return nil, err
	}
	defer m.Close()
	v, err := wire.DecodeInflight(m.Payload)
	switch {
	case err != nil:
		return nil, err
	case v.MmapSize == 0:
		return nil, &Refused{Request: wire.GetInflightFD, Status: 1}
	case len(m.FDs) != 1:
		return nil, errors.New("ask GET_INFLIGHT_FD: no descriptor came with the reply")
	}
	return &Inflight{Desc: v, FD: m.TakeFD(0)}, nil
}

// SetInflight gives the memory to a backend, before its rings are started.
func (f *Frontend) SetInflight(i *Inflight) error {
	return f.Tell(wire.SetInflightFD, i.Desc.AppendTo(nil), i.FD)
}

// Close frees the memory.
func (i *Inflight) Close() { unix.Close(i.FD) }
