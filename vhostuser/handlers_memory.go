// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// maxMemSlots is how many regions a frontend may add one by one. QEMU and KVM
// have 509 of them, libvhost-user as many.
const maxMemSlots = 509

// setMemTable replaces the memory table.
func (b *Backend) setMemTable(m *wire.Message) (reply, error) {
	if b.post.active.Load() {
		return b.tellTable(m)
	}
	regions, err := b.mapTable(m)
	if err != nil {
		return reply{}, err
	}
	defer releaseAll(regions)
	mem, err := newMemory(regions)
	if err != nil {
		return reply{}, err
	}
	b.useMemory(mem)
	return reply{}, nil
}

// forgetMemTable leaves the device without memory.
func (b *Backend) forgetMemTable(*wire.Message) {
	if !b.post.active.Load() { // else it was an acknowledgement, or the connection ends
		b.useMemory(nil)
	}
}

// tellTable is setMemTable after POSTCOPY_LISTEN: either the table, which is
// answered, or the frontend's acknowledgement.
func (b *Backend) tellTable(m *wire.Message) (reply, error) {
	if isAcknowledgement(m) {
		return reply{}, b.acknowledged(m)
	}
	regions, err := b.mapTable(m)
	if err != nil {
		return reply{}, fatalError{err}
	}
	var table wire.MemTable
	for _, r := range regions {
		table = append(table, told(r))
	}
	return reply{payload: table.AppendTo(nil), always: true}, b.tell(nil, regions)
}

// mapTable maps the regions of a table. The caller owns a reference to each.
func (b *Backend) mapTable(m *wire.Message) (regions []*region, err error) {
	table, err := wire.DecodeMemTable(m.Payload)
	if err != nil {
		return nil, err
	}
	if len(table) != len(m.FDs) {
		return nil, fmt.Errorf("%d descriptors came with %d regions", len(m.FDs), len(table))
	}
	defer func() {
		if err != nil {
			releaseAll(regions)
		}
	}()
	for i, r := range table {
		reg, err := mapRegion(r, m.FDs[i])
		if err != nil {
			return regions, err
		}
		regions = append(regions, reg)
	}
	return regions, nil
}

func releaseAll(regions []*region) {
	for _, r := range regions {
		r.release()
	}
}

func (b *Backend) addMemReg(m *wire.Message) (reply, error) {
	listening := b.post.active.Load()
	if listening && isAcknowledgement(m) {
		return reply{}, b.acknowledged(m)
	}
	reg, err := b.mapSlot(m)
	if err != nil {
		if listening {
			err = fatalError{err} // the frontend understands nothing but our address
		}
		return reply{}, err
	}
	if listening {
		v := wire.SingleMemRegion{MemRegion: told(reg)}
		return reply{payload: v.AppendTo(nil), always: true}, b.tell(retainAll(b.table()), []*region{reg})
	}
	defer reg.release()
	mem, err := newMemory(append(slices.Clone(b.table()), reg))
	if err != nil {
		return reply{}, err
	}
	b.useMemory(mem)
	return reply{}, nil
}

// mapSlot maps the region of ADD_MEM_REG. The caller owns a reference.
func (b *Backend) mapSlot(m *wire.Message) (*region, error) {
	v, err := wire.DecodeSingleMemRegion(m.Payload)
	switch {
	case err != nil:
		return nil, err
	case len(m.FDs) != 1:
		return nil, fmt.Errorf("%d descriptors came with a memory region", len(m.FDs))
	case len(b.table()) >= maxMemSlots:
		return nil, fmt.Errorf("all %d memory slots are in use", maxMemSlots)
	}
	return mapRegion(v.MemRegion, m.FDs[0])
}

// retainAll returns the regions with a reference more to each.
func retainAll(regions []*region) []*region {
	for _, r := range regions {
		r.refs.Add(1)
	}
	return slices.Clone(regions)
}

func (b *Backend) remMemReg(m *wire.Message) error {
	v, err := wire.DecodeSingleMemRegion(m.Payload)
	if err != nil {
		return err
	}
	reg := entry(b.table(), v.MemRegion)
	if reg == nil {
		return errors.New("there is no such memory region")
	}
	rest := slices.DeleteFunc(slices.Clone(b.table()), func(r *region) bool { return r == reg })
	if b.post.telling {
		b.post.told = rest
		reg.release()
		return nil
	}
	mem, err := newMemory(rest)
	if err != nil {
		return err
	}
	b.useMemory(mem)
	return nil
}

// useMemory makes mem, whose reference it consumes, the memory of the device;
// nil stands for none.
func (b *Backend) useMemory(mem *Memory) {
	if mem == nil {
		mem, _ = newMemory(nil)
	}
	mem.tlb, mem.b = b.tlb, b
	old := b.mem.Swap(mem)
	for _, q := range b.queues {
		q.setMemory(mem)
	}
	old.Release()
	call(b.dev.MemoryChanged, mem)
}
