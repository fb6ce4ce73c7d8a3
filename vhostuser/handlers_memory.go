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

// setMemTable replaces the memory table. A table that cannot be mapped leaves
// the device without memory: the old one is not what the frontend means.
func (b *Backend) setMemTable(m *wire.Message) (reply, error) {
	regions, err := b.mapTable(m)
	if err != nil {
		b.useMemory(nil)
		return reply{}, err
	}
	defer releaseAll(regions)
	mem, err := newMemory(regions)
	if err != nil {
		b.useMemory(nil)
		return reply{}, err
	}
	b.useMemory(mem)
	return reply{}, nil
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

func (b *Backend) addMemReg(m *wire.Message) error {
	v, err := wire.DecodeSingleMemRegion(m.Payload)
	if err != nil {
		return err
	}
	have := b.mem.Load().regions
	if len(have) >= maxMemSlots {
		return fmt.Errorf("all %d memory slots are in use", maxMemSlots)
	}
	reg, err := mapRegion(v.MemRegion, m.FDs[0])
	if err != nil {
		return err
	}
	defer reg.release()
	mem, err := newMemory(append(slices.Clone(have), reg))
	if err != nil {
		return err
	}
	b.useMemory(mem)
	return nil
}

func (b *Backend) remMemReg(m *wire.Message) error {
	v, err := wire.DecodeSingleMemRegion(m.Payload)
	if err != nil {
		return err
	}
	mem := b.mem.Load()
	reg := mem.entry(v.MemRegion)
	if reg == nil {
		return errors.New("there is no such memory region")
	}
	rest, err := newMemory(slices.DeleteFunc(slices.Clone(mem.regions), func(r *region) bool { return r == reg }))
	if err != nil {
		return err
	}
	b.useMemory(rest)
	return nil
}

// useMemory makes mem, whose reference it consumes, the memory of the device;
// nil stands for none.
func (b *Backend) useMemory(mem *Memory) {
	if mem == nil {
		mem, _ = newMemory(nil)
	}
	mem.tlb = b.tlb
	old := b.mem.Swap(mem)
	for _, q := range b.queues {
		q.setMemory(mem)
	}
	old.Release()
	call(b.dev.MemoryChanged, mem)
}
