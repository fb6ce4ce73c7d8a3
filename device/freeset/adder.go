// SPDX-License-Identifier: Apache-2.0

package freeset

import "math/bits"

// A bin has the blocks of one region, whose bitmap fits into a second-level cache.
const (
	regionShift  = 21 // log2 of a region's frames: 8 GiB
	regionChunks = 1 << (regionShift - chunkShift)
	regionWords  = 1 << regionShift / 64

	// binSize is the most blocks of a bin and its tray, each of 4 bytes. All of them
	// together have half of the size of the set's bitmap.
	binSize = 1 << regionShift / 8 / 4 / 2
	// maxBinned bounds the blocks of all bins and trays: 16 MiB.
	maxBinned = 16 << 20 / 4

	// minBinned is the smallest capacity, in frames, that is binned: 32 GiB. A smaller
	// bitmap stays in the caches.
	minBinned = 1 << 23
)

// regions returns the number of an area's regions. The last one may be smaller.
func (a *area) regions() int { return int((a.count + 1<<regionShift - 1) >> regionShift) }

// An Adder adds blocks to a Set, as [Set.Add] does, and is faster with very many small
// blocks that come in no order. Each of them would be a cache miss. So the Adder keeps such
// blocks in bins by region, and adds them a bin at a time. It takes up to half of the
// memory of the set's bitmap, and at most 16 MiB. Create it with NewAdder.
//
// To write one block each to many bins would again be a cache miss for every line of a bin.
// So a block first comes to its region's tray. The trays are few enough for a cache. A full
// tray goes to its bin, and such a copy has several lines on their way at a time.
//
// Until Flush, the set lacks what is in the trays and bins.
type Adder struct {
	set    *Set
	base   []int      // number of each area's first bin; nil without bins
	size   int        // the most blocks of a bin and its tray
	width  int        // the most blocks of a tray
	trays  []tray     // of each region
	blocks []uint32   // those of one tray after the other; each is packed by pack
	bins   [][]uint32 // the capacity of each is size - width

	overlapOK bool // for the blocks in the bins
}

// A tray ends in the Adder's blocks, and is full if it ends at full.
type tray struct{ end, full uint32 }

// NewAdder returns an Adder for s. It is of no use after s.SetMemory or s.Reset.
func NewAdder(s *Set) *Adder {
	a := &Adder{set: s}
	if s.Capacity() < minBinned {
		return a
	}
	n := 0
	for i := range s.areas {
		a.base = append(a.base, n)
		n += s.areas[i].regions()
	}
	if n > maxBinned/64 {
		return &Adder{set: s} // 512 TiB; such bins are of no use
	}
	a.trays = make([]tray, n)
	size := min(binSize, 1<<(bits.Len(uint(maxBinned/n))-1))
	// Trays that fill up alike are written to at the same place of each. If a tray has an odd
	// number of lines, as all but small ones have, these places do not share a set of the cache.
	const line = 64 / 4
	a.resize(size, size/64|line)
	return a
}

// resize sets the size of the bins and the width of the trays. They are empty.
func (a *Adder) resize(size, width int) {
	a.size, a.width = size, width
	for i := range a.trays {
		a.trays[i] = tray{end: uint32(i * width), full: uint32((i + 1) * width)}
	}
}

// Add is Set.Add, with one difference: an overlap with a block in a bin may be found
// later. Then Add or Flush returns ErrOverlap, and done says nothing.
func (a *Adder) Add(blocks []Block, overlapOK bool) (done int, outside uint64, err error) {
	if overlapOK != a.overlapOK {
		// What is in the bins must not overlap, but these may, or the other way round.
		if err := a.Flush(); err != nil {
			return 0, 0, err
		}
		a.overlapOK = overlapOK
	}
	if a.base == nil || !scattered(blocks) {
		return a.set.Add(blocks, overlapOK)
	}
	if a.bins == nil {
		a.makeBins()
	}
	for done < len(blocks) {
		n, err := a.bin(blocks[done:])
		if done += n; err != nil {
			return done, outside, err
		}
		if done == len(blocks) {
			break
		}
		// This is no block for a bin, or else the first of another area.
		n, left, err := a.set.Add(blocks[done:done+1], overlapOK)
		if outside += left; err != nil {
			return done, outside, err
		}
		done += n
	}
	return done, outside, nil
}

// Flush adds what is in the bins. It returns ErrOverlap if one of these blocks overlaps
// another of the set.
func (a *Adder) Flush() error {
	if a.bins == nil {
		return nil
	}
	for i := range a.base {
		for j := range a.set.areas[i].regions() {
			if err := a.unload(i, j); err != nil {
				return err
			}
			if err := a.empty(i, j); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Adder) makeBins() {
	n := len(a.trays)
	all := make([]uint32, n*a.size)
	a.blocks, all = all[:n*a.width], all[n*a.width:]
	a.bins = make([][]uint32, n)
	room := a.size - a.width
	for i := range n {
		a.bins[i] = all[i*room : i*room : (i+1)*room]
	}
}

// scattered looks at a sample of the blocks: is the next one mostly far away?
func scattered(blocks []Block) bool {
	const far = 20 // log2 of frames: 4 GiB, or 128 KiB of the bitmap
	seen, apart := 0, 0
	for i := 1; i < len(blocks); i += 16 {
		seen++
		if (blocks[i].First^blocks[i-1].First)>>far != 0 {
			apart++
		}
	}
	return 2*apart > seen
}

// bin puts blocks into trays up to the first that is not small or does not lie in one
// word of the area used last. It returns how many it took.
func (a *Adder) bin(blocks []Block) (done int, err error) {
	if a.set.last >= len(a.set.areas) {
		return 0, nil
	}
	for {
		n, full := a.put(blocks[done:])
		if done += n; full < 0 {
			return done, nil
		}
		if err := a.unload(a.set.last, full); err != nil {
			return done, err
		}
		done++
	}
}

// put is bin up to the block that makes a tray full. It returns the tray's region, or else a
// negative number. It calls nothing, so that its variables stay in registers.
func (a *Adder) put(blocks []Block) (done, full int) {
	area := &a.set.areas[a.set.last]
	first, words := area.first, area.count&^63 // of whole words
	trays, packed := a.trays[a.base[a.set.last]:], a.blocks
	for i, b := range blocks {
		from := b.First - first // wraps to a large number below first
		if from >= words || b.Count-1 >= 64-from&63 {
			return i, -1
		}
		region := from >> regionShift
		t := &trays[region]
		n := t.end
		packed[n] = pack(from, b.Count)
		if t.end = n + 1; n+1 == t.full {
			return i, int(region)
		}
	}
	return len(blocks), -1
}

// pack packs a small block: its first frame in the region above 6 bits of its count.
func pack(from, count uint64) uint32 {
	return uint32(from&(1<<regionShift-1)<<6 | (count - 1))
}

// unload moves a tray's blocks, of region n of an area, to the bin. There must be room for
// another tray afterwards, or else the bin is emptied.
func (a *Adder) unload(area, n int) error {
	i := a.base[area] + n
	t := &a.trays[i]
	begin := t.full - uint32(a.width)
	a.bins[i] = append(a.bins[i], a.blocks[begin:t.end]...)
	t.end = begin
	if cap(a.bins[i])-len(a.bins[i]) >= a.width {
		return nil
	}
	return a.empty(area, n)
}

// empty adds the blocks of one bin: that of region n of an area.
func (a *Adder) empty(area, n int) error {
	i := a.base[area] + n
	bin := a.bins[i]
	a.bins[i] = bin[:0]
	all := a.set.areas[area].chunks[n*regionChunks:]
	var r region
	copy(r[:], all)
	if len(bin) > regionWords/16 {
		// Read in order, the region comes into the cache faster.
		for _, c := range r {
			if c != nil {
				c.read()
			}
		}
	}
	for len(bin) > 0 {
		done, frames, again := r.add(bin)
		if again != 0 && !a.overlapOK {
			return ErrOverlap
		}
		a.set.free += frames - again
		if bin = bin[done:]; len(bin) > 0 {
			k := bin[0] >> 6 >> chunkShift
			all[k] = new(chunk)
			r[k] = all[k]
		}
	}
	return nil
}

// A region has the chunks of one bin. There are fewer at the end of an area.
type region [regionChunks]*chunk

// add adds blocks up to the first whose chunk is nil, and returns how many, with how many
// frames, and how many of those were in the set. Like put, it calls nothing.
func (r *region) add(bin []uint32) (done int, frames, again uint64) {
	for i, packed := range bin {
		from, last := packed>>6, packed&63
		c := r[from>>chunkShift%regionChunks]
		if c == nil {
			return i, frames + uint64(i), again
		}
		mask := (uint64(2)<<last - 1) << (from & 63)
		word := &c[from>>6%chunkWords]
		had := *word
		*word = had | mask
		if both := had & mask; both != 0 {
			again += uint64(bits.OnesCount64(both))
		}
		frames += uint64(last)
	}
	return len(bin), frames + uint64(len(bin)), again
}

//go:noinline
func (c *chunk) read() (sum uint64) {
	const line = 64 / 8 // words
	for i := 0; i < len(c); i += line {
		sum += c[i]
	}
	return sum
}
