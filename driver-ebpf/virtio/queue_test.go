// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
)

// ringPair is a queue and a device that works on the same rings. Physical memory is one
// slice of bytes that begins at page 1.
type ringPair struct {
	t        *testing.T
	queue    *Queue
	memory   []byte
	buffers  *dma.Region
	kicks    int
	availIdx uint16
	usedIdx  uint16
}

const testPage = 4096

func newRingPair(t *testing.T, size uint16, indirect bool) *ringPair {
	t.Helper()
	const ringPages, bufferPages = queuePages, 8
	tablePages := 0
	if indirect {
		tablePages = int(size)
	}
	p := &ringPair{t: t}
	total := ringPages + bufferPages + tablePages
	p.memory = make([]byte, total*testPage)
	take := func(from, pages int) *dma.Region {
		frames := make([]uint64, pages)
		mem := p.memory[from*testPage : (from+pages)*testPage]
		for i := range frames {
			frames[i] = uint64(1 + from + i)
		}
		return dma.Fixed(mem, testPage, frames)
	}
	ring := take(0, ringPages)
	p.buffers = take(ringPages, bufferPages)
	var tables *dma.Region
	if indirect {
		tables = take(ringPages+bufferPages, tablePages)
	}
	var err error
	parts := [queuePages]dma.Slice{ring.Page(0), ring.Page(1), ring.Page(2)}
	p.queue, err = newQueue(size, parts, tables, func() { p.kicks++ })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// at returns n bytes of physical memory at addr.
func (p *ringPair) at(addr uint64, n uint32) []byte {
	p.t.Helper()
	off := addr - testPage
	if addr < testPage || off+uint64(n) > uint64(len(p.memory)) {
		p.t.Fatalf("the device is sent to %#x, %d bytes", addr, n)
	}
	return p.memory[off : off+uint64(n)]
}

// piece is a descriptor as the device sees it.
type piece struct {
	Addr  uint64
	Len   uint32
	Write bool
}

// pop takes the next available chain, as the device.
func (p *ringPair) pop() (head uint16, pieces []piece, ok bool) {
	p.t.Helper()
	avail := p.queue.avail
	if binary.LittleEndian.Uint16(avail[2:]) == p.availIdx {
		return 0, nil, false
	}
	head = binary.LittleEndian.Uint16(avail[4+2*(p.availIdx%p.queue.size):])
	p.availIdx++
	table, at := p.queue.descMem, head
	for range int(p.queue.size) + 1 {
		desc := table[int(at)*descSize:][:descSize]
		addr := binary.LittleEndian.Uint64(desc)
		length := binary.LittleEndian.Uint32(desc[8:])
		flags := binary.LittleEndian.Uint16(desc[12:])
		if flags&descIndirect != 0 {
			if flags != descIndirect || len(pieces) != 0 {
				p.t.Fatalf("indirect descriptor with flags %#x after %d pieces", flags, len(pieces))
			}
			table, at = p.at(addr, length), 0
			continue
		}
		pieces = append(pieces, piece{addr, length, flags&descWrite != 0})
		if flags&descNext == 0 {
			return head, pieces, true
		}
		at = binary.LittleEndian.Uint16(desc[14:])
	}
	p.t.Fatal("the chain has no end")
	return 0, nil, false
}

// use gives a chain back, as the device.
func (p *ringPair) use(head uint32, written uint32) {
	used := p.queue.used
	entry := used[4+8*(p.usedIdx%p.queue.size):]
	binary.LittleEndian.PutUint32(entry, head)
	binary.LittleEndian.PutUint32(entry[4:], written)
	p.usedIdx++
	binary.LittleEndian.PutUint16(used[2:], p.usedIdx)
}

func TestChainsTravelBothWays(t *testing.T) {
	for _, indirect := range []bool{false, true} {
		t.Run(fmt.Sprintf("indirect=%v", indirect), func(t *testing.T) {
			p := newRingPair(t, 8, indirect)
			out := []dma.Slice{p.buffers.Slice(10, 20), p.buffers.Slice(3*testPage-8, 16)}
			in := []dma.Slice{p.buffers.Slice(5*testPage, 100)}
			base := p.buffers.Slice(0, 1).Addr()
			want := []piece{
				{base + 10, 20, false},
				{base + 3*testPage - 8, 16, false}, // contiguous over the page's end
				{base + 5*testPage, 100, true},
			}
			for round := range 100 { // indexes wrap around the ring many times
				if err := p.queue.Add(round, out, in); err != nil {
					t.Fatal(err)
				}
				p.queue.Kick()
				head, got, ok := p.pop()
				if !ok {
					t.Fatal("the device finds nothing")
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatal(diff)
				}
				if _, _, ok, err := p.queue.Used(); ok || err != nil {
					t.Fatalf("used before the device did: %v", err)
				}
				p.use(uint32(head), 77)
				token, written, ok, err := p.queue.Used()
				if err != nil || !ok || token != round || written != 77 {
					t.Fatalf("token %d, %d bytes, %v, %v", token, written, ok, err)
				}
			}
			if p.queue.InFlight() != 0 || p.kicks != 100 {
				t.Fatalf("%d in flight, %d kicks", p.queue.InFlight(), p.kicks)
			}
		})
	}
}

func TestFullQueueRefusesUntilAChainIsUsed(t *testing.T) {
	for _, indirect := range []bool{false, true} {
		t.Run(fmt.Sprintf("indirect=%v", indirect), func(t *testing.T) {
			p := newRingPair(t, 8, indirect)
			two := []dma.Slice{p.buffers.Slice(0, 8), p.buffers.Slice(64, 8)}
			room := 4
			if indirect {
				room = 8
			}
			for i := range room {
				if err := p.queue.Add(i, two, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.queue.Add(99, two, nil); !errors.Is(err, ErrQueueFull) {
				t.Fatalf("error %v, want ErrQueueFull", err)
			}
			heads := make([]uint16, room)
			for i := range heads {
				heads[i], _, _ = p.pop()
			}
			// The device may use chains in any order.
			for i := room - 1; i >= 0; i-- {
				p.use(uint32(heads[i]), 0)
				token, _, ok, err := p.queue.Used()
				if err != nil || !ok || token != i {
					t.Fatalf("token %d, %v, %v; want %d", token, ok, err, i)
				}
			}
			for i := range room {
				if err := p.queue.Add(i, two, nil); err != nil {
					t.Fatalf("chain %d after all came back: %v", i, err)
				}
			}
		})
	}
}

func TestChainThatIsTooLongIsRefused(t *testing.T) {
	p := newRingPair(t, 8, false)
	var out []dma.Slice
	for i := range p.queue.MaxSegments() + 1 {
		out = append(out, p.buffers.Slice(i*64, 8))
	}
	if err := p.queue.Add(0, out, nil); err == nil || errors.Is(err, ErrQueueFull) {
		t.Fatalf("error %v", err)
	}
	if err := p.queue.Add(0, nil, nil); err == nil {
		t.Fatal("an empty chain was added")
	}
	if err := p.queue.Add(0, out[1:], nil); err != nil {
		t.Fatal(err)
	}
}

func TestBrokenUsedRingIsNoticed(t *testing.T) {
	for name, breakIt := range map[string]func(p *ringPair, head uint16){
		"an index that runs ahead": func(p *ringPair, head uint16) {
			p.use(uint32(head), 0)
			p.usedIdx += 5
			p.use(uint32(head), 0)
		},
		"an index that goes back": func(p *ringPair, head uint16) {
			p.usedIdx -= 2
			p.use(uint32(head), 0)
		},
		"a descriptor past the table": func(p *ringPair, head uint16) {
			p.use(8, 0)
		},
		"a descriptor of all ones": func(p *ringPair, head uint16) {
			p.use(0xffffffff, 0)
		},
		"a descriptor that is free": func(p *ringPair, head uint16) {
			p.use(uint32(head)+2, 0)
		},
		"the middle of a chain": func(p *ringPair, head uint16) {
			p.use(uint32(head)+1, 0)
		},
		"more bytes than there was for": func(p *ringPair, head uint16) {
			p.use(uint32(head), 9)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newRingPair(t, 8, false)
			out, in := []dma.Slice{p.buffers.Slice(0, 8)}, []dma.Slice{p.buffers.Slice(64, 8)}
			if err := p.queue.Add(1, out, in); err != nil {
				t.Fatal(err)
			}
			head, _, _ := p.pop()
			breakIt(p, head)
			if _, _, ok, err := p.queue.Used(); ok || !errors.Is(err, ErrNeedsReset) {
				t.Fatalf("%v, %v; want ErrNeedsReset", ok, err)
			}
		})
	}
}

func TestNotificationsAreSentOnlyWhenNeeded(t *testing.T) {
	p := newRingPair(t, 8, false)
	add := func() {
		t.Helper()
		if err := p.queue.Add(0, []dma.Slice{p.buffers.Slice(0, 8)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	p.queue.Kick()
	if p.kicks != 0 {
		t.Fatal("kicked for nothing")
	}
	add()
	add()
	p.queue.Kick()
	p.queue.Kick()
	if p.kicks != 1 {
		t.Fatalf("%d kicks for one batch", p.kicks)
	}
	binary.LittleEndian.PutUint16(p.queue.used, noNotify)
	add()
	p.queue.Kick()
	if p.kicks != 1 {
		t.Fatal("kicked a device that does not want it")
	}

	p.queue.WantInterrupts(false)
	add()
	if got := binary.LittleEndian.Uint16(p.queue.avail); got != noInterrupt {
		t.Fatalf("avail.flags %#x", got)
	}
	p.queue.WantInterrupts(true)
	if got := binary.LittleEndian.Uint16(p.queue.avail); got != 0 {
		t.Fatalf("avail.flags %#x", got)
	}
	if got := binary.LittleEndian.Uint16(p.queue.avail[2:]); got != 4 {
		t.Fatalf("avail.idx %d: changing flags changed it", got)
	}
}

func TestInvalidQueueSizesAreRefused(t *testing.T) {
	ring := dma.Fixed(make([]byte, 3*testPage), testPage, []uint64{1, 2, 3})
	parts := [queuePages]dma.Slice{ring.Page(0), ring.Page(1), ring.Page(2)}
	for _, size := range []uint16{0, 3, 512} {
		if _, err := newQueue(size, parts, nil, nil); err == nil {
			t.Errorf("a queue of %d descriptors", size)
		}
	}
}

func FuzzUsedRing(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 0, 0, 0, 8, 0, 0, 0})
	f.Fuzz(func(t *testing.T, used []byte) {
		p := newRingPair(t, 8, false)
		for i := range 4 {
			in := []dma.Slice{p.buffers.Slice(0, 8), p.buffers.Slice(64, 8)}
			if err := p.queue.Add(i, nil, in); err != nil {
				t.Fatal(err)
			}
		}
		copy(p.queue.used, used)
		seen := make(map[int]bool)
		for {
			token, written, ok, err := p.queue.Used()
			if !ok || err != nil {
				return
			}
			if seen[token] || written > 16 {
				t.Fatalf("token %d twice, or %d bytes", token, written)
			}
			seen[token] = true
		}
	})
}
