// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Postcopy is the frontend at the destination of a postcopy migration: it is told of the
// pages that the backend misses, and places them.
//
// A goroutine that waits for a page in a memory access of its own stops the whole process at
// the next garbage collection. That includes a goroutine that would resolve the fault. So
// tests for such accesses resolve faults in another process ([ServeFaults]).
type Postcopy struct {
	f    *Frontend
	uffd *shm.Userfault
	// slots are the regions as the backend knows them.
	slots []slot
}

type slot struct {
	block *Block
	base  uint64 // in the backend
}

// Advise tells the backend that a postcopy migration may come, and gets the
// userfaultfd by which it will tell of its faults. PAGEFAULT must have been
// negotiated.
func (f *Frontend) Advise() (*Postcopy, error) {
	m, err := f.Ask(wire.PostcopyAdvise, nil)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if m.Size != 0 || len(m.FDs) != 1 {
		return nil, &Refused{Request: wire.PostcopyAdvise, Status: 1}
	}
	return &Postcopy{f: f, uffd: &shm.Userfault{FD: m.TakeFD(0)}}, nil
}

// Listen begins postcopy. Memory is sent after it, by SetMemory.
func (p *Postcopy) Listen() error { return p.f.TellSync(wire.PostcopyListen, nil) }

// SetMemory sends the guest's memory as slots or as a table, learns where the
// backend has it, and lets the backend use it.
func (p *Postcopy) SetMemory(g *Guest) error {
	if p.f.Negotiated.Has(wire.ProtocolConfigureMemSlots) {
		for _, b := range g.Blocks {
			if err := p.AddBlock(b); err != nil {
				return err
			}
		}
		return p.Acknowledge(wire.AddMemReg, 0)
	}
	table, fds := g.table()
	m, err := p.f.Ask(wire.SetMemTable, table.AppendTo(nil), fds...)
	if err != nil {
		return err
	}
	defer m.Close()
	reply, err := wire.DecodeMemTable(m.Payload)
	if err != nil || len(reply) != len(table) {
		return fmt.Errorf("set memory table: %d regions in the reply: %w", len(reply), err)
	}
	p.slots = nil
	for i, r := range reply {
		if err := p.learn(g.Blocks[i], table[i], r); err != nil {
			return err
		}
	}
	return p.Acknowledge(wire.SetMemTable, 0)
}

// AddBlock sends one slot. The backend uses it after Acknowledge.
func (p *Postcopy) AddBlock(b *Block) error {
	m, err := p.f.Ask(wire.AddMemReg, wire.SingleMemRegion{MemRegion: b.Region()}.AppendTo(nil), b.FD)
	if err != nil {
		return err
	}
	defer m.Close()
	v, err := wire.DecodeSingleMemRegion(m.Payload)
	if err != nil {
		return err
	}
	return p.learn(b, b.Region(), v.MemRegion)
}

func (p *Postcopy) learn(b *Block, sent, reply wire.MemRegion) error {
	base := reply.UserAddr
	reply.UserAddr = sent.UserAddr
	if reply != sent || base == 0 {
		return fmt.Errorf("set memory: region %v came back as %v", sent, reply)
	}
	p.slots = append(p.slots, slot{b, base})
	return nil
}

// Acknowledge tells the backend that its addresses are known. req is the
// request that the backend answered with them. Nobody answers this one.
func (p *Postcopy) Acknowledge(req wire.Request, status uint64) error {
	return p.f.Send(req, 0, wire.U64(status).AppendTo(nil))
}

// Fault waits for an access to a page that is missing, and returns the page's
// guest address.
func (p *Postcopy) Fault(timeout time.Duration) (addr uint64, err error) {
	at, err := nextFault(p.uffd, timeout)
	if err != nil {
		return 0, err
	}
	for _, s := range p.slots {
		if at >= s.base && at-s.base < s.block.Size() {
			return (s.block.Addr + at - s.base) &^ (PageSize - 1), nil
		}
	}
	return 0, fmt.Errorf("fault at %#x is in no region", at)
}

func nextFault(u *shm.Userfault, timeout time.Duration) (addr uint64, err error) {
	for deadline := time.Now().Add(timeout); ; {
		addr, ok, err := u.Fault()
		switch {
		case err != nil:
			return 0, fmt.Errorf("read fault: %w", err)
		case ok:
			return addr, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return 0, ErrTimeout
		}
		fds := []unix.PollFd{{Fd: int32(u.FD), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil &&
			!errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("wait for fault: %w", os.NewSyscallError("poll", err))
		}
	}
}

// Place puts the contents of a page at a guest address, and wakes the backend.
func (p *Postcopy) Place(addr uint64, page []byte) error {
	for _, s := range p.slots {
		if addr >= s.block.Addr && addr-s.block.Addr < s.block.Size() {
			return place(p.uffd, s.block.FD, s.base, addr-s.block.Addr, page)
		}
	}
	return fmt.Errorf("place page: %#x is in no region", addr)
}

func place(u *shm.Userfault, fd int, base, off uint64, page []byte) error {
	if _, err := unix.Pwrite(fd, page[:PageSize], int64(off)); err != nil {
		return fmt.Errorf("place page: %w", os.NewSyscallError("pwrite", err))
	}
	return u.Wake(base+off, PageSize)
}

// End ends postcopy, when all pages are there.
func (p *Postcopy) End() error {
	status, err := p.f.AskU64(wire.PostcopyEnd)
	if err == nil && status != 0 {
		err = &Refused{Request: wire.PostcopyEnd, Status: wire.U64(status)}
	}
	return err
}

// Close closes the frontend's userfaultfd.
func (p *Postcopy) Close() { p.uffd.Close() }

// Base returns the address of a block in the backend, and the userfaultfd, for ServeFaults in
// another process.
func (p *Postcopy) Base(b *Block) (base uint64, uffd int) {
	for _, s := range p.slots {
		if s.block == b {
			return s.base, p.uffd.FD
		}
	}
	return 0, -1
}

// ServeFaults places the pages of one block, whose memory fd holds and which
// the backend has at base, as they are missed. contents returns a page by its
// offset. It returns when nothing is missed for the given time.
func ServeFaults(uffd, fd int, base uint64, contents func(off uint64) []byte,
	idle time.Duration) error {
	u := &shm.Userfault{FD: uffd}
	for {
		at, err := nextFault(u, idle)
		if errors.Is(err, ErrTimeout) {
			return nil
		}
		if err != nil {
			return err
		}
		off := (at - base) &^ (PageSize - 1)
		if err := place(u, fd, base, off, contents(off)); err != nil {
			return err
		}
	}
}

// Punch takes n bytes, whole pages, out of the guest's memory, as before they
// arrive at a destination, and returns what was there.
func (g *Guest) Punch(addr, n uint64) ([]byte, error) {
	p := g.Read(addr, n)
	b := g.block(addr)
	err := unix.Fallocate(b.FD, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(addr-b.Addr),
		int64(n))
	return p, os.NewSyscallError("fallocate", err)
}
