// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"math"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// memory are the rules of the memory table.
func memory() []check {
	const (
		table = "vhost-user.rst, VHOST_USER_SET_MEM_TABLE"
		slots = "vhost-user.rst, VHOST_USER_ADD_MEM_REG, VHOST_USER_REM_MEM_REG"
	)
	return []check{
		{id: "VHU-MEM-1", source: table, text: "A table of 8 regions is accepted.", run: tableOfEight},
		{id: "VHU-MEM-2", source: table,
			text: "A table with more or fewer descriptors than regions is refused.", run: tableFDs},
		{id: "VHU-MEM-3", source: "vhost-user.rst, Memory regions description",
			text: "A table that counts more regions than it has room for is refused.", run: tableCount},
		{id: "VHU-MEM-4", source: table, text: "A table replaces the one before.", run: tableReplaced},
		{id: "VHU-MEM-5", source: "vhost-user.rst, Memory regions description",
			text: "A region begins at its mmap offset in its file.", run: mmapOffset},
		{id: "VHU-MEM-6", source: "vhost-user.rst, Memory regions description", advice: true,
			text: "A region whose addresses wrap around, or that has no bytes, is refused.",
			run:  badRegions},
		{id: "VHU-MEM-7", source: "vhost-user.rst, Memory access", advice: true,
			text: "Regions whose guest addresses overlap are refused.", run: overlap},
		{id: "VHU-MEM-8", source: "vhost-user.rst, VHOST_USER_SET_MEM_TABLE", advice: true,
			text: "A region that is longer than its file is refused.", run: regionPastFile},
		{id: "VHU-MEM-9", source: "vhost-user.rst, VHOST_USER_GET_MAX_MEM_SLOTS",
			text: "GET_MAX_MEM_SLOTS is answered by a number of slots that can indeed be filled.",
			run:  fillSlots},
		{id: "VHU-MEM-10", source: slots, text: "ADD_MEM_REG without a descriptor is refused.",
			run: addWithoutFD},
		{id: "VHU-MEM-11", source: slots,
			text: "REM_MEM_REG finds its region by guest address, user address and size;" +
				" the mmap offset is ignored.",
			run: removeIgnoresOffset},
		{id: "VHU-MEM-12", source: slots, text: "REM_MEM_REG of a region that is not there is refused.",
			run: removeUnknown},
		{id: "VHU-MEM-13", source: slots,
			text: "A descriptor that comes with REM_MEM_REG is closed.", run: removeWithFD},
		{id: "VHU-MEM-14", source: slots,
			text: "Memory that is added while a ring runs can be used at once.", run: hotAdd},
		{id: "VHU-MEM-15", source: slots,
			text: "Memory that is not in use can be removed while a ring runs.", run: hotRemove},
		{id: "VHU-MEM-16", source: "vhost-user.rst, Ring states; QEMU 10.0 does not send slots again",
			text: "The memory table outlives GET_VRING_BASE.", run: memoryOutlivesStop},
	}
}

// guest makes guest memory that is freed with the check.
func (s *session) guest(sizes ...uint64) *vhosttest.Guest {
	g, err := vhosttest.NewGuest(sizes...)
	if err != nil {
		s.Errorf("%v", err)
	}
	s.Cleanup(g.Close)
	return g
}

func sizes(n int, size uint64) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = size
	}
	return all
}

// regions returns the table of a guest's memory, with its descriptors.
func regions(g *vhosttest.Guest) (t wire.MemTable, fds []int) {
	for _, b := range g.Blocks {
		t, fds = append(t, b.Region()), append(fds, b.FD)
	}
	return t, fds
}

func tableOfEight(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	s.must(f.SetTable(s.guest(sizes(8, 1<<20)...)), "set a table of 8 regions")
}

func tableFDs(s *session) {
	for _, n := range []int{0, 1, 3} {
		f := s.realizeWith(wire.ProtocolReplyAck)
		g := s.guest(sizes(2, 1<<20)...)
		t, fds := regions(g)
		fds = append(fds, fds[0])[:n]
		s.refuse(f, "2 regions and another number of descriptors",
			wire.SetMemTable, t.AppendTo(nil), fds...)
	}
}

func tableCount(s *session) {
	for _, n := range []byte{9, 255} {
		f := s.realizeWith(wire.ProtocolReplyAck)
		t, fds := regions(s.guest(1 << 20))
		p := t.AppendTo(nil)
		p[0] = n
		s.refuse(f, "a count that its payload does not bear out", wire.SetMemTable, p, fds...)
	}
}

// withoutSlots makes the frontend send tables.
var withoutSlots = vhosttest.Options{Without: 1 << wire.ProtocolConfigureMemSlots}

func tableReplaced(s *session) {
	m := s.boot(bootOptions{Options: withoutSlots})
	m.work(2)
	b := m.addBlock(1 << 20)
	m.must(m.f.SetTable(m.g), "set a table with one region more")
	m.useBlock(b)
	m.g.Blocks = m.g.Blocks[:2]
	m.must(m.f.SetTable(m.g), "set a table with one region less")
	m.work(2)
}

// addBlock adds memory to the guest. The backend does not hear of it.
func (m *machine) addBlock(size uint64) *vhosttest.Block {
	b, err := m.g.AddBlock(m.g.End(), size)
	if err != nil {
		m.Errorf("%v", err)
	}
	return b
}

// useBlock has requests in that block answered.
func (m *machine) useBlock(b *vhosttest.Block) {
	kept := m.idle
	m.idle = nil
	m.idle = []*Request{m.newRequest(b.Alloc, dataBytes)}
	m.work(1)
	m.idle = kept
}

// mmapOffset describes the guest's one file as two regions.
func mmapOffset(s *session) {
	m := s.boot(bootOptions{stopped: true, Options: withoutSlots})
	m.must(m.f.SetFeatures(m.features), "set features")
	var t wire.MemTable
	var fds []int
	for _, b := range m.g.Blocks {
		whole := b.Region()
		half := whole.Size / 2
		low, high := whole, whole
		low.Size = half
		high.GuestAddr, high.UserAddr = whole.GuestAddr+half, whole.UserAddr+half
		high.MmapOffset, high.Size = half, half
		t, fds = append(t, high, low), append(fds, b.FD, b.FD)
	}
	m.must(m.f.TellSync(wire.SetMemTable, t.AppendTo(nil), fds...), "set a table with mmap offsets")
	m.startRings(true)
	m.work(2)
	b := m.g.Blocks[1] // its upper half
	b.Alloc(b.Size()/2 + 64<<10)
	m.useBlock(b)
}

func badRegions(s *session) {
	const lastPage = math.MaxUint64 - 0xfff
	for _, r := range []struct {
		what string
		wire.MemRegion
	}{
		{"no bytes", wire.MemRegion{GuestAddr: 1 << 20, UserAddr: 1 << 30}},
		{"guest addresses that wrap around",
			wire.MemRegion{GuestAddr: lastPage, Size: 1 << 20, UserAddr: 1 << 30}},
		{"user addresses that wrap around",
			wire.MemRegion{GuestAddr: 1 << 20, Size: 1 << 20, UserAddr: lastPage}},
		{"an mmap offset that wraps around", wire.MemRegion{
			GuestAddr: 1 << 20, Size: 1 << 20, UserAddr: 1 << 30, MmapOffset: lastPage,
		}},
	} {
		f := s.realizeWith(wire.ProtocolReplyAck)
		_, fds := regions(s.guest(2 << 20))
		table := wire.MemTable{r.MemRegion}.AppendTo(nil)
		s.refuse(f, "a region that has "+r.what, wire.SetMemTable, table, fds...)
	}
}

func overlap(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	t, fds := regions(s.guest(sizes(2, 1<<20)...))
	t[1].GuestAddr -= 0x1000
	s.refuse(f, "overlapping regions", wire.SetMemTable, t.AppendTo(nil), fds...)
}

func regionPastFile(s *session) {
	f := s.realizeWith(wire.ProtocolReplyAck)
	t, fds := regions(s.guest(1 << 20))
	t[0].Size = 4 << 20
	s.refuse(f, "a region that is longer than its file", wire.SetMemTable, t.AppendTo(nil), fds...)
}

func single(b *vhosttest.Block) wire.SingleMemRegion {
	return wire.SingleMemRegion{MemRegion: b.Region()}
}

func fillSlots(s *session) {
	f := s.realizeWith(wire.ProtocolConfigureMemSlots, wire.ProtocolReplyAck)
	n, err := f.AskU64(wire.GetMaxMemSlots)
	s.must(err, "ask for the number of slots")
	s.Notef("the backend has %d slots", n)
	if n == 0 {
		s.Failf("the backend has no slots")
	}
	b := s.guest(1 << 12).Blocks[0]
	for i := range min(n, 509) {
		r := single(b)
		r.GuestAddr += i << 20
		r.UserAddr += i << 20
		if err := f.Confirm(wire.AddMemReg, r.AppendTo(nil), b.FD); err != nil {
			s.Failf("the backend has %d slots, but slot %d: %v", n, i, err)
		}
	}
}

func addWithoutFD(s *session) {
	f := s.realizeWith(wire.ProtocolConfigureMemSlots, wire.ProtocolReplyAck)
	s.refuse(f, "no descriptor", wire.AddMemReg, single(s.guest(1 << 20).Blocks[0]).AppendTo(nil))
}

func removeIgnoresOffset(s *session) {
	f := s.realizeWith(wire.ProtocolConfigureMemSlots, wire.ProtocolReplyAck)
	b := s.guest(1 << 20).Blocks[0]
	s.accept(f, wire.AddMemReg, single(b).AppendTo(nil), b.FD)
	r := single(b)
	r.MmapOffset = 0x5000
	s.accept(f, wire.RemMemReg, r.AppendTo(nil))
	s.accept(f, wire.AddMemReg, single(b).AppendTo(nil), b.FD)
}

func removeUnknown(s *session) {
	f := s.realizeWith(wire.ProtocolConfigureMemSlots, wire.ProtocolReplyAck)
	b := s.guest(1 << 20).Blocks[0]
	s.accept(f, wire.AddMemReg, single(b).AppendTo(nil), b.FD)
	r := single(b)
	r.GuestAddr += 1 << 30
	s.refuse(f, "a region that was never added", wire.RemMemReg, r.AppendTo(nil))
}

func removeWithFD(s *session) {
	f := s.realizeWith(wire.ProtocolConfigureMemSlots, wire.ProtocolReplyAck)
	b := s.guest(1 << 20).Blocks[0]
	s.accept(f, wire.AddMemReg, single(b).AppendTo(nil), b.FD)
	fd, released := s.pipe()
	s.must(f.Send(wire.RemMemReg, 0, single(b).AppendTo(nil), fd), "send %v", wire.RemMemReg)
	s.expectReleased(f, released, "the descriptor that came with REM_MEM_REG")
}

func hotAdd(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolConfigureMemSlots),
		"backend does not offer CONFIGURE_MEM_SLOTS")
	for range 3 {
		m.work(1)
		b := m.addBlock(1 << 20)
		m.must(m.f.AddBlock(b), "add memory")
		m.useBlock(b)
	}
}

func hotRemove(s *session) {
	m := s.boot(bootOptions{})
	s.need(m.f.Negotiated.Has(wire.ProtocolConfigureMemSlots),
		"backend does not offer CONFIGURE_MEM_SLOTS")
	for range 3 {
		b := m.addBlock(1 << 20)
		m.must(m.f.AddBlock(b), "add memory")
		m.useBlock(b)
		m.must(m.f.RemoveBlock(b), "remove memory")
		m.work(2)
	}
}

func memoryOutlivesStop(s *session) {
	m := s.boot(bootOptions{})
	for range 2 {
		m.work(2)
		m.restart()
	}
	m.work(2)
}
