// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"
	"os"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// addSharedRules adds the request of SHARED_OBJECT.
func (b *Backend) addSharedRules(rules map[wire.Request]rule) {
	rules[wire.GetSharedObject] = rule{
		size: sizeUUID, feature: wire.ProtocolSharedObject, replies: true, refusal: []byte{},
		handle: b.getSharedObject,
	}
}

// getSharedObject passes on a descriptor of the device's, or none.
func (b *Backend) getSharedObject(m *wire.Message) (reply, error) {
	id, err := wire.DecodeUUID(m.Payload)
	if err != nil {
		return reply{}, err
	}
	fd, err := b.dev.SharedObject(id)
	if err != nil {
		return reply{}, fmt.Errorf("get shared object %v: %w", id, err)
	}
	return reply{fds: []int{fd}}, nil
}

// AddSharedObject announces an object that [Device.SharedObject] exports to
// other devices of the virtual machine. It needs SHARED_OBJECT.
func (b *Backend) AddSharedObject(id wire.UUID) error {
	return b.sharedObject(wire.BackendSharedObjectAdd, id)
}

// RemoveSharedObject withdraws an object.
func (b *Backend) RemoveSharedObject(id wire.UUID) error {
	return b.sharedObject(wire.BackendSharedObjectRemove, id)
}

func (b *Backend) sharedObject(req wire.BackendRequest, id wire.UUID) error {
	if err := b.needs(wire.ProtocolSharedObject); err != nil {
		return fmt.Errorf("send %v: %w", req, err)
	}
	return b.request(req, id.AppendTo(nil))
}

// LookupSharedObject returns an object, a dma-buf, that another device of the virtual machine
// exports. The caller closes it. It needs SHARED_OBJECT. With QEMU 10.0 it always fails, because
// QEMU sends no descriptor with its answer.
func (b *Backend) LookupSharedObject(id wire.UUID) (*os.File, error) {
	if err := b.needs(wire.ProtocolSharedObject); err != nil {
		return nil, fmt.Errorf("look up shared object %v: %w", id, err)
	}
	fd, err := b.channel.ask(&exchange{
		req: wire.BackendSharedObjectLookup, payload: id.AppendTo(nil), replies: true,
	}, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look up shared object %v: %w", id, err)
	case fd < 0:
		return nil, fmt.Errorf("look up shared object %v: no descriptor came with the answer", id)
	}
	return os.NewFile(uintptr(fd), "shared object "+id.String()), nil
}
