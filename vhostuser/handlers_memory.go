// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// maxMemSlots is how many regions a frontend may add one by one. QEMU and KVM
// have 509 of them, libvhost-user as many.
const maxMemSlots = 509

// setMemTable replaces the memory table.
func (b *Backend) setMemTable(m *wire.Message) (reply, error) {
	if b.mem.Arriving() {
		return b.tellTable(m)
	}
	slots, err := b.mapTable(m)
	defer guestmem.ReleaseAll(slots)
	if err != nil {
		return reply{}, err
	}
	table, err := b.mem.Table(slots)
	if err != nil {
		return reply{}, err
	}
	b.useMemory(table)
	return reply{}, nil
}

// forgetMemTable leaves the device without memory.
func (b *Backend) forgetMemTable(*wire.Message) {
	if !b.mem.Arriving() { // in postcopy it was an acknowledgement, or the connection ends
		b.useMemory(b.mem.Empty())
	}
}

// mapTable maps the regions of a table. The caller owns a reference to each, also
// after an error.
func (b *Backend) mapTable(m *wire.Message) (slots []*guestmem.Slot, err error) {
	table, err := wire.DecodeMemTable(m.Payload)
	if err != nil {
		return nil, err
	}
	if len(table) != len(m.FDs) {
		return nil, fmt.Errorf("%d descriptors came with %d regions", len(m.FDs), len(table))
	}
	for i, r := range table {
		slot, err := guestmem.MapSlot(r, m.FDs[i], b.dev.KeepMemoryFiles)
		if err != nil {
			return slots, err
		}
		slots = append(slots, slot)
	}
	return slots, nil
}

func (b *Backend) addMemReg(m *wire.Message) (reply, error) {
	if b.mem.Arriving() {
		return b.tellSlot(m)
	}
	slot, err := b.mapSlot(m)
	if err != nil {
		return reply{}, err
	}
	defer slot.Release()
	table, err := b.mem.Peek().With(slot)
	if err != nil {
		return reply{}, err
	}
	b.useMemory(table)
	return reply{}, nil
}

// mapSlot maps the region of ADD_MEM_REG. The caller owns a reference.
func (b *Backend) mapSlot(m *wire.Message) (*guestmem.Slot, error) {
	v, err := wire.DecodeSingleMemRegion(m.Payload)
	switch {
	case err != nil:
		return nil, err
	case len(m.FDs) != 1:
		return nil, fmt.Errorf("%d descriptors came with a memory region", len(m.FDs))
	case len(b.nextTable().Slots()) >= maxMemSlots:
		return nil, fmt.Errorf("all %d memory slots are in use", maxMemSlots)
	}
	return guestmem.MapSlot(v.MemRegion, m.FDs[0], b.dev.KeepMemoryFiles)
}

func (b *Backend) remMemReg(m *wire.Message) error {
	v, err := wire.DecodeSingleMemRegion(m.Payload)
	if err != nil {
		return err
	}
	slot := b.nextTable().Slot(v.MemRegion)
	if slot == nil {
		return errors.New("there is no such memory region")
	}
	rest := b.nextTable().Without(slot)
	if b.post.told != nil {
		b.post.tell(rest)
		return nil
	}
	b.useMemory(rest)
	return nil
}

// useMemory makes table, whose reference it consumes, the memory of the device.
func (b *Backend) useMemory(table *guestmem.Snapshot) {
	old := b.mem.Replace(table)
	for _, q := range b.queues {
		q.setMemory(table)
	}
	old.Release()
	call(b.dev.MemoryChanged, &Memory{table})
}
