// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// Profile says how to make one kind of device work on buffers.
type Profile struct {
	// Name identifies the profile on the command line.
	Name string
	// Does is one line for people.
	Does string
	// Queues is how many queues a driver sets up, and Queue which of them
	// takes the requests. With no Queues the device cannot be made to work.
	Queues, Queue int
	// Features are feature bits that the requests need.
	Features uint64
	// Request lays out request i in memory from alloc, for a device that
	// writes about n bytes of data into it, a multiple of 512.
	Request func(g *vhosttest.Guest, alloc func(n uint64) uint64, i, n int) *Request
	// Format returns a request that prepares the device for request i. nil: no
	// preparation is needed.
	Format func(g *vhosttest.Guest, alloc func(n uint64) uint64, i int) *Request
	// ReadOnly is the offset of a byte of config space that a driver cannot
	// change, -1 if none is known.
	ReadOnly int

	checks []check
}

// Request is something for the device to do. It can be asked again and again.
type Request struct {
	Buffers []vhosttest.Buffer
	// Data is the first address that the device writes, 0 if it writes none.
	// Its pages hold nothing that the driver writes in between.
	Data uint64
	// Exact says that the device fills all that it can write.
	Exact bool
	// Clear removes an earlier answer from the buffers.
	Clear func()
	// Check checks the answer. n is the number of bytes that the device says it
	// wrote, which may be wrong.
	Check func(n uint32) error
}

// writable returns how many bytes the device can write.
func (r *Request) writable() uint32 {
	n := uint32(0)
	for _, b := range r.Buffers {
		if b.Write {
			n += b.Len
		}
	}
	return n
}

// Profiles returns all profiles.
func Profiles() []*Profile {
	return []*Profile{Generic(), Echo(), RNG(), Block(), FreePage()}
}

// FindProfile returns the profile of that name.
func FindProfile(name string) (*Profile, error) {
	var names []string
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return nil, fmt.Errorf("find device profile %q: there are %q", name, names)
}

// Generic is any device: no requests are made of it.
func Generic() *Profile {
	return &Profile{Name: "generic", Does: "no requests: messages only", ReadOnly: -1}
}

// blank is what requests leave where the device is to write.
const blank = 0xee

// Echo is a test device with two queues: it copies the readable part of each
// chain to its writable part.
func Echo() *Profile {
	return &Profile{
		Name:   "echo",
		Does:   "a test device that copies each chain's readable part to its writable part",
		Queues: 2, ReadOnly: -1, Request: echoRequest,
	}
}

func echoRequest(g *vhosttest.Guest, alloc func(uint64) uint64, i, n int) *Request {
	text := pattern(uint64(i), n)
	in, out := alloc(uint64(n)), alloc(uint64(n))
	g.Write(in, text)
	return &Request{
		Buffers: []vhosttest.Buffer{{Addr: in, Len: uint32(n)}, {Addr: out, Len: uint32(n), Write: true}},
		Data:    out,
		Exact:   true,
		Clear:   func() { g.Write(out, bytes.Repeat([]byte{blank}, n)) },
		Check: func(uint32) error {
			if !bytes.Equal(g.Read(out, uint64(n)), text) {
				return errors.New("what the device wrote is not what it read")
			}
			return nil
		},
	}
}

// RNG is an entropy device (VIRTIO 1.2 section 5.4).
func RNG() *Profile {
	return &Profile{
		Name: "rng", Does: "an entropy device fills buffers",
		Queues: 1, ReadOnly: -1, Request: rngRequest,
	}
}

func rngRequest(g *vhosttest.Guest, alloc func(uint64) uint64, _, n int) *Request {
	out := alloc(uint64(n))
	return &Request{
		Buffers: []vhosttest.Buffer{{Addr: out, Len: uint32(n), Write: true}},
		Data:    out,
		Clear:   func() { g.Write(out, bytes.Repeat([]byte{blank}, n)) },
		Check: func(used uint32) error {
			got := g.Read(out, uint64(n))
			used = min(used, uint32(n))
			if used == 0 {
				return errors.New("device used a buffer without a byte of entropy")
			}
			if rest := got[used:]; len(bytes.Trim(rest, string([]byte{blank}))) > 0 {
				return fmt.Errorf("device wrote more than the %d bytes that it admits", used)
			}
			if used >= 16 && bytes.Count(got[:used], []byte{blank}) == int(used) {
				return fmt.Errorf("device says that it wrote %d bytes, and wrote none", used)
			}
			return nil
		},
	}
}

// Requests of a block device, VIRTIO 1.2 section 5.2.6.
const (
	blockRead  = 0
	blockWrite = 1
	sectorSize = 512
	// slotSectors is how far the sectors of two requests are apart.
	slotSectors = 64
)

// Block is a block device with a writable disk of at least 1 MiB, whose first
// MiB is overwritten.
func Block() *Profile {
	return &Profile{Name: "blk", Does: "a block device; the first MiB of its disk is overwritten",
		Queues: 1, ReadOnly: 0, Request: blockReadRequest, Format: blockFormatRequest}
}

func blockReadRequest(g *vhosttest.Guest, alloc func(uint64) uint64, i, n int) *Request {
	r, data, status := blockRequest(g, alloc, blockRead, i, n)
	r.Data = data
	r.Clear = func() {
		g.Write(data, bytes.Repeat([]byte{blank}, n))
		g.Write(status, []byte{blank})
	}
	r.Check = func(uint32) error {
		if err := blockStatus(g, status); err != nil {
			return err
		}
		if !bytes.Equal(g.Read(data, uint64(n)), pattern(uint64(i), n)) {
			return errors.New("what the device read from its disk is not what was written there")
		}
		return nil
	}
	return r
}

// blockFormatRequest writes all the sectors that request i may read.
func blockFormatRequest(g *vhosttest.Guest, alloc func(uint64) uint64, i int) *Request {
	const n = slotSectors * sectorSize
	r, data, status := blockRequest(g, alloc, blockWrite, i, n)
	g.Write(data, pattern(uint64(i), n))
	r.Clear = func() { g.Write(status, []byte{blank}) }
	r.Check = func(uint32) error { return blockStatus(g, status) }
	return r
}

func blockRequest(
	g *vhosttest.Guest, alloc func(uint64) uint64, kind uint32, i, n int,
) (r *Request, data, status uint64) {
	header, data, status := alloc(16), alloc(uint64(n)), alloc(1)
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, 0)
	g.Write(header, binary.LittleEndian.AppendUint64(b, uint64(i)*slotSectors))
	return &Request{Exact: true, Buffers: []vhosttest.Buffer{
		{Addr: header, Len: 16},
		{Addr: data, Len: uint32(n), Write: kind == blockRead},
		{Addr: status, Len: 1, Write: true},
	}}, data, status
}

func blockStatus(g *vhosttest.Guest, addr uint64) error {
	if status := g.Read(addr, 1)[0]; status != 0 {
		return fmt.Errorf("block request ended with status %d", status)
	}
	return nil
}

// pattern returns n bytes that depend on the seed. A shorter pattern is the beginning of a
// longer one with the same seed.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, 0, n+8)
	for i := uint64(0); len(b) < n; i++ {
		word := (seed+1)*0x9e3779b97f4a7c15 + i*0xbf58476d1ce4e5b9 + 0x94d049bb133111eb
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return slices.Clip(b[:n])
}
