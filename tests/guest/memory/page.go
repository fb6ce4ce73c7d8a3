// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"fmt"
	"os"
)

// PageSize is the size of the pages that are counted and filled, in bytes. It is that of QEMU's
// pages. The base page of a guest for arm64 may be several of them.
const PageSize = 4096

// perBase returns how many pages a base page of this guest is. Memory is given back to the
// kernel in base pages.
func perBase() int { return os.Getpagesize() / PageSize }

// content says what a page holds. The zero value is a page of zeroes, as the kernel
// allocates it. Any other is a pseudo-random stream that follows from the owner and the
// generation.
type content struct {
	owner      uint64 // names the page among all that were ever written
	generation uint64 // counts its writes; 0: never written
}

// mix is the finaliser of splitmix64: each bit of the input changes about half
// of the bits of the output.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// goldenRatio is 2^64 divided by the golden ratio, splitmix64's increment.
const goldenRatio = 0x9e3779b97f4a7c15

// write fills a page. The first two words hold owner and generation, so that a mismatch
// can tell which content is in the page instead.
func (c content) write(page []byte) {
	le := binary.LittleEndian
	_ = page[PageSize-1]
	le.PutUint64(page[0:], c.owner)
	le.PutUint64(page[8:], c.generation)
	state := mix(c.owner) ^ mix(c.generation)<<1
	for i := 16; i < PageSize; i += 8 {
		state += goldenRatio
		le.PutUint64(page[i:], mix(state))
	}
}

// check compares a page with what it should hold. It returns the offset of the
// first word that differs, or -1.
func (c content) check(page []byte) int {
	le := binary.LittleEndian
	_ = page[PageSize-1]
	if c.generation == 0 {
		for i := 0; i < PageSize; i += 8 {
			if le.Uint64(page[i:]) != 0 {
				return i
			}
		}
		return -1
	}
	if le.Uint64(page[0:]) != c.owner {
		return 0
	}
	if le.Uint64(page[8:]) != c.generation {
		return 8
	}
	state := mix(c.owner) ^ mix(c.generation)<<1
	for i := 16; i < PageSize; i += 8 {
		state += goldenRatio
		if le.Uint64(page[i:]) != mix(state) {
			return i
		}
	}
	return -1
}

// Mismatch is a page that does not hold what was last written to it.
type Mismatch struct {
	Address  string `json:"address"`  // virtual address of the page in the program
	Offset   int    `json:"offset"`   // of the first word that differs
	Expected string `json:"expected"` // what the page should be
	Seen     string `json:"seen"`     // what is in the page
}

// String implements fmt.Stringer.
func (m Mismatch) String() string {
	return fmt.Sprintf("page %s+%#x: expected %s, saw %s", m.Address, m.Offset, m.Expected, m.Seen)
}

func (c content) String() string {
	if c.generation == 0 {
		return "zeroes"
	}
	return fmt.Sprintf("page %#x generation %d", c.owner, c.generation)
}

// newMismatch describes what a page holds instead.
func newMismatch(page []byte, want content, offset int) Mismatch {
	le := binary.LittleEndian
	found := content{owner: le.Uint64(page[0:]), generation: le.Uint64(page[8:])}
	var seen string
	switch {
	case content{}.check(page) < 0:
		seen = "zeroes"
	case found.generation != 0 && found.check(page) < 0:
		seen = found.String()
		if found.owner == want.owner {
			seen += " (stale)"
		}
	default:
		seen = fmt.Sprintf("word %#016x in a page that begins %#016x %#016x",
			le.Uint64(page[offset:]), found.owner, found.generation)
	}
	address := fmt.Sprintf("%p", &page[0])
	return Mismatch{Address: address, Offset: offset, Expected: want.String(), Seen: seen}
}
