// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pulseTick is how often a Pulse works. What it has missed it does not make up for.
const pulseTick = 5 * time.Millisecond

// A Pulse works at an even pace: it writes to its pages in a random order, and counts that in a
// page whose physical address it knows. So the host sees from the guest's memory alone how the work
// goes, also while the guest moves. The counter is locked. Create it with NewPulse. It is
// for one goroutine.
type Pulse struct {
	counter []byte // one page
	mem     []byte
	count   uint64
	each    int // writes in a tick
	rand    *rand.Rand
}

// NewPulse returns a Pulse over so many pages that makes so many writes in a second.
func NewPulse(pages, rate int) (*Pulse, error) {
	each := rate * int(pulseTick/time.Microsecond) / 1e6
	if pages < 1 || each < 1 {
		return nil, fmt.Errorf("make a pulse of %d pages and %d writes a second", pages, rate)
	}
	p := &Pulse{each: each, rand: rand.New(rand.NewPCG(1, 1))}
	var err error
	if p.counter, err = mapPrivate(os.Getpagesize()); err != nil {
		return nil, err
	}
	if err := unix.Mlock(p.counter); err != nil {
		return nil, os.NewSyscallError("mlock", err)
	}
	if p.mem, err = mapPrivate(pages * PageSize); err != nil {
		return nil, err
	}
	for i := range pages {
		content{owner: uint64(i + 1), generation: 1}.write(p.mem[i*PageSize:][:PageSize])
	}
	return p, nil
}

// Address returns the guest-physical address of the counter: 8 bytes, little endian.
func (p *Pulse) Address() (uint64, error) { return physical(p.counter) }

// Run works until stop is closed.
func (p *Pulse) Run(stop <-chan struct{}) {
	tick := time.NewTicker(pulseTick)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for range p.each {
			word := p.mem[p.rand.IntN(len(p.mem)/PageSize)*PageSize:]
			binary.LittleEndian.PutUint64(word, binary.LittleEndian.Uint64(word)+1)
			p.count++
			binary.LittleEndian.PutUint64(p.counter, p.count)
		}
	}
}
