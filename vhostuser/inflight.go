// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
)

// flight tracks the chains of a ring that are in flight, in memory that survives this
// process. So the next backend can finish them (vhost-user.rst, "Inflight I/O tracking").
// The memory is read only after this process has died, so program order is enough for its
// stores. Methods must be called inside a Guard, by the holder of the queue's lock. The
// memory is shared with the frontend, and is not trusted.
type flight interface {
	// recover sets the ring's positions from the memory. It returns the chains that
	// an earlier backend left in flight, in the order in which that backend fetched
	// them. If the memory is uninitialised it initialises it.
	recover() ([]uint16, error)
	// load fills c with a chain that was left in flight.
	load(c *Chain, entry uint16) error
	// take records c, which was fetched.
	take(c *Chain) error
	// untake forgets c, the chain fetched last.
	untake(c *Chain)
	// complete records that c is put on the used ring, and is followed by
	// the ring's publish.
	complete(c *Chain)
	// settle records that what was completed is published.
	settle()
	// leave marks the memory as uninitialised. The frontend has stopped the ring, and
	// knows its base. Before the next start, a driver may reset the device, and then
	// the record would be wrong.
	leave()
}

// newFlight tracks the chains of r in a, which has room for limit descriptors.
func newFlight(r ring, a area, limit int) flight {
	switch r := r.(type) {
	case *packedRing:
		return &packedFlight{area: a, ring: r, limit: limit}
	default:
		return &splitFlight{area: a, ring: r.(*splitRing), limit: limit}
	}
}

// inflightSize returns the size of the memory for one ring of n descriptors.
func inflightSize(d dialect, n int) uint64 {
	size := splitFlightHeader + n*splitFlightEntry
	if d.packed {
		size = packedFlightHeader + n*packedFlightEntry
	}
	return uint64(size+inflightAlign-1) &^ (inflightAlign - 1)
}

const (
	// inflightAlign separates the parts of two queues: a cache line, as other
	// backends have it.
	inflightAlign = 64
	// inflightVersion is the version of the layout. Zero means uninitialised.
	inflightVersion = 1

	// Where both layouts begin: le64 features, le16 version, le16 desc_num.
	flightVersion = 8
	flightNum     = 10
)

// area is the memory of one queue.
type area struct {
	b []byte
	// step, if set, is called before each store: tests die there.
	step func()
}

func (a *area) before() {
	if a.step != nil {
		a.step()
	}
}

func (a *area) load16(off int) uint16 { return shm.Load16(a.b, off) }
func (a *area) load64(off int) uint64 { return binary.LittleEndian.Uint64(a.b[off:]) }

func (a *area) store8(off int, v uint8) {
	a.before()
	a.b[off] = v
}

func (a *area) store16(off int, v uint16) {
	a.before()
	shm.Store16(a.b, off, v)
}

func (a *area) store64(off int, v uint64) {
	a.before()
	binary.LittleEndian.PutUint64(a.b[off:], v)
}

func (a *area) initialised() bool { return a.load16(flightVersion) != 0 }

// initialise begins with nothing in flight; fill adds what is not zero.
func (a *area) initialise(limit int, fill func()) {
	clear(a.b)
	a.store16(flightNum, uint16(limit))
	fill()
	a.store16(flightVersion, inflightVersion)
}

// leave implements flight.
func (a *area) leave() { a.store16(flightVersion, 0) }

// check checks the layout of memory that somebody else initialised.
func (a *area) check(limit int) error {
	if v := a.load16(flightVersion); v != inflightVersion {
		return fmt.Errorf("inflight memory has version %d", v)
	}
	if n := int(a.load16(flightNum)); n != limit {
		return fmt.Errorf("inflight memory is for %d descriptors, not for %d", n, limit)
	}
	return nil
}
