// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"fmt"
	"iter"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// PageSize is the page size of guests and of the dirty log.
const PageSize = 4096

// Guest is the memory of a guest: blocks of shared memory at guest physical
// addresses, and an allocator over them.
type Guest struct {
	// Only AddBlock changes them.
	Blocks []*Block

	mu    sync.Mutex      // guards dirty, and Blocks against AddBlock
	dirty map[uint64]bool // pages written by the guest, while a Migration runs
}

// Block is a piece of guest memory in a memfd of its own.
type Block struct {
	// Addr is the guest physical address.
	Addr uint64
	// FD is the memfd. It belongs to the block.
	FD int

	mapping *shm.Mapping
	next    uint64 // allocation offset
}

// NewGuest makes a guest whose memory begins at 1 MiB and consists of adjacent
// blocks of the given sizes, multiples of the page size.
func NewGuest(sizes ...uint64) (_ *Guest, err error) {
	g := &Guest{}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	addr := uint64(1 << 20)
	for _, size := range sizes {
		if _, err := g.AddBlock(addr, size); err != nil {
			return nil, err
		}
		addr += size
	}
	return g, nil
}

// AddBlock adds memory at addr.
func (g *Guest) AddBlock(addr, size uint64) (*Block, error) {
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make guest memory: %w", os.NewSyscallError("memfd_create", err))
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make guest memory: %w", os.NewSyscallError("ftruncate", err))
	}
	m, err := shm.Map(fd, 0, size)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	b := &Block{Addr: addr, FD: fd, mapping: m}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Blocks = append(g.Blocks, b)
	return b, nil
}

// Close frees the memory.
func (g *Guest) Close() {
	for _, b := range g.Blocks {
		unix.Close(b.FD)
		_ = b.mapping.Unmap()
	}
	g.Blocks = nil
}

// Size returns the block's length in bytes.
func (b *Block) Size() uint64 { return uint64(len(b.mapping.Bytes())) }

// touched yields the offsets of the parts of the block that hold anything. The
// rest is zero, and a look there would have the kernel take memory for it.
func (b *Block) touched() iter.Seq2[uint64, uint64] {
	return func(yield func(from, to uint64) bool) {
		for to := int64(0); ; {
			from, err := unix.Seek(b.FD, to, unix.SEEK_DATA)
			if err != nil { // ENXIO: there is no more
				return
			}
			if to, err = unix.Seek(b.FD, from, unix.SEEK_HOLE); err != nil {
				to = int64(b.Size())
			}
			if !yield(uint64(from), uint64(to)) {
				return
			}
		}
	}
}

// Region describes the block as the memory messages do. Its address in this
// process stands for the frontend's address.
func (b *Block) Region() wire.MemRegion {
	return wire.MemRegion{GuestAddr: b.Addr, Size: b.Size(), UserAddr: shm.Addr(b.mapping.Bytes())}
}

// End returns the guest physical address after the last block.
func (g *Guest) End() uint64 {
	var end uint64
	for _, b := range g.Blocks {
		end = max(end, b.Addr+b.Size())
	}
	return end
}

// Alloc returns the guest physical address of n unused bytes, which begin at a
// page and share no page with others, in the first block that has room. It
// panics when none has.
func (g *Guest) Alloc(n uint64) uint64 {
	for _, b := range g.Blocks {
		if addr, ok := b.alloc(n); ok {
			return addr
		}
	}
	panic("guest memory is used up")
}

// Alloc is Guest.Alloc for memory of this block.
func (b *Block) Alloc(n uint64) uint64 {
	addr, ok := b.alloc(n)
	if !ok {
		panic("block of guest memory is used up")
	}
	return addr
}

// Truncate takes the memory away from under the backend's mapping.
func (b *Block) Truncate() error {
	return os.NewSyscallError("ftruncate", unix.Ftruncate(b.FD, 0))
}

func (b *Block) alloc(n uint64) (uint64, bool) {
	n = (n + PageSize - 1) &^ (PageSize - 1)
	if b.Size()-b.next < n {
		return 0, false
	}
	addr := b.Addr + b.next
	b.next += n
	return addr, true
}

func (g *Guest) block(addr uint64) *Block {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.Blocks {
		if addr >= b.Addr && addr-b.Addr < b.Size() {
			return b
		}
	}
	return nil
}

// at returns the memory from addr to the end of its block. It panics outside
// guest memory: what the test writes is under the test's control.
func (g *Guest) at(addr uint64) []byte {
	b := g.block(addr)
	if b == nil {
		panic(fmt.Sprintf("%#x is not guest memory", addr))
	}
	return b.mapping.Bytes()[addr-b.Addr:]
}

// User returns the frontend's address for a guest physical address.
func (g *Guest) User(addr uint64) uint64 { return shm.Addr(g.at(addr)) }

// Write stores p at addr, as the guest's processor does.
func (g *Guest) Write(addr uint64, p []byte) {
	for len(p) > 0 {
		n := copy(g.at(addr), p)
		g.touch(addr, uint64(n))
		addr, p = addr+uint64(n), p[n:]
	}
}

// Read returns n bytes at addr.
func (g *Guest) Read(addr, n uint64) []byte {
	p := make([]byte, 0, n)
	for uint64(len(p)) < n {
		b := g.at(addr + uint64(len(p)))
		p = append(p, b[:min(n-uint64(len(p)), uint64(len(b)))]...)
	}
	return p
}

// touch records a write of the guest, as KVM's dirty log does.
func (g *Guest) touch(addr, n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dirty == nil || n == 0 {
		return
	}
	for p := addr / PageSize; p <= (addr+n-1)/PageSize; p++ {
		g.dirty[p] = true
	}
}
