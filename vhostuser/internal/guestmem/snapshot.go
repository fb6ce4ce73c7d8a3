// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Snapshot is an immutable table of guest memory. It is reference-counted: the
// mappings live as long as one of the snapshots that have them. All methods may be
// called from any goroutine that holds a reference.
//
// The next table is made of this one by [Snapshot.With] and [Snapshot.Without]:
// whatever a table holds, a change copies its two lists of pointers and looks at
// the neighbours of what changes.
type Snapshot struct {
	space   *Space
	byGuest []*Slot // ascending by guest address, disjoint
	byUser  []*Slot // the same, by the frontend's address
	refs    atomic.Int64
}

// Empty returns a table without memory, with one reference.
func (s *Space) Empty() *Snapshot { return s.snapshot(nil, nil) }

// snapshot makes a table with one reference, which has references of its own to
// the slots.
func (s *Space) snapshot(byGuest, byUser []*Slot) *Snapshot {
	for _, slot := range byGuest {
		slot.Retain()
	}
	m := &Snapshot{space: s, byGuest: byGuest, byUser: byUser}
	m.refs.Store(1)
	return m
}

// Table makes a table of the slots, with one reference. The slots stay the
// caller's.
func (s *Space) Table(slots []*Slot) (*Snapshot, error) {
	var byGuest, byUser []*Slot
	for _, slot := range slots {
		var err error
		if byGuest, byUser, err = insert(byGuest, byUser, slot); err != nil {
			return nil, err
		}
	}
	return s.snapshot(byGuest, byUser), nil
}

// With returns a table that has slot, too, with one reference.
func (m *Snapshot) With(slot *Slot) (*Snapshot, error) {
	byGuest, byUser, err := insert(room(m.byGuest), room(m.byUser), slot)
	if err != nil {
		return nil, err
	}
	return m.space.snapshot(byGuest, byUser), nil
}

// Without returns a table that lacks slot, with one reference.
func (m *Snapshot) Without(slot *Slot) *Snapshot {
	is := func(s *Slot) bool { return s == slot }
	return m.space.snapshot(
		slices.DeleteFunc(slices.Clone(m.byGuest), is), slices.DeleteFunc(slices.Clone(m.byUser), is))
}

// room copies a list, with room for one more.
func room(slots []*Slot) []*Slot { return append(make([]*Slot, 0, len(slots)+1), slots...) }

func guestAddr(s *Slot) uint64 { return s.GuestAddr }
func userAddr(s *Slot) uint64  { return s.UserAddr }

// insert puts slot into both lists, unless it overlaps another one.
func insert(byGuest, byUser []*Slot, slot *Slot) (g, u []*Slot, err error) {
	if g, err = insertBy(byGuest, slot, guestAddr); err != nil {
		return nil, nil, err
	}
	u, err = insertBy(byUser, slot, userAddr)
	return g, u, err
}

func insertBy(sorted []*Slot, slot *Slot, addr func(*Slot) uint64) ([]*Slot, error) {
	i, _ := slices.BinarySearchFunc(sorted, addr(slot),
		func(s *Slot, a uint64) int { return cmp.Compare(addr(s), a) })
	var over *Slot
	switch {
	case i > 0 && addr(slot)-addr(sorted[i-1]) < sorted[i-1].Size:
		over = sorted[i-1]
	case i < len(sorted) && addr(sorted[i])-addr(slot) < slot.Size:
		over = sorted[i]
	default:
		return slices.Insert(sorted, i, slot), nil
	}
	return nil, fmt.Errorf("build memory table: %v overlaps %v", slot.MemRegion, over.MemRegion)
}

// Retain keeps the mappings until a matching Release. The caller must hold a
// reference already.
func (m *Snapshot) Retain() { m.refs.Add(1) }

// Release drops a reference.
func (m *Snapshot) Release() {
	if m.refs.Add(-1) == 0 {
		ReleaseAll(m.byGuest)
	}
}

// Freed says whether the last reference is gone.
func (m *Snapshot) Freed() bool { return m.refs.Load() <= 0 }

// Slots returns the slots in ascending order of guest address. The list is the
// snapshot's own.
func (m *Snapshot) Slots() []*Slot { return m.byGuest }

// Slot returns the slot that r describes, for removal, or nil. The offset does not
// identify it (vhost-user.rst, VHOST_USER_REM_MEM_REG).
func (m *Snapshot) Slot(r wire.MemRegion) *Slot {
	i := sort.Search(len(m.byGuest), func(i int) bool { return m.byGuest[i].GuestAddr >= r.GuestAddr })
	if i == len(m.byGuest) {
		return nil
	}
	have := m.byGuest[i]
	if have.GuestAddr != r.GuestAddr || have.UserAddr != r.UserAddr || have.Size != r.Size {
		return nil
	}
	return have
}

// find returns the slot that holds n bytes at an address of the frontend, and
// those.
func (m *Snapshot) find(addr, n uint64) (*Slot, []byte, error) {
	i := sort.Search(len(m.byUser), func(i int) bool { return m.byUser[i].UserAddr > addr })
	if i > 0 {
		s := m.byUser[i-1]
		if off := addr - s.UserAddr; off < s.Size && n <= s.Size-off {
			return s, s.data[off : off+n : off+n], nil
		}
	}
	return nil, nil,
		fmt.Errorf("its %#x bytes at %#x of the frontend are in no memory that the frontend shares", n,
			addr)
}
