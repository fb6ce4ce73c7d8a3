// SPDX-License-Identifier: Apache-2.0

package paging

import (
	"encoding/binary"
	"errors"
	"testing"
)

// memory is physical memory that begins at 0.
type memory []byte

var errOutside = errors.New("outside of memory")

func (m memory) Read(p []byte, gpa uint64) error {
	if gpa > uint64(len(m)) || uint64(len(p)) > uint64(len(m))-gpa {
		return errOutside
	}
	copy(p, m[gpa:])
	return nil
}

func (m memory) set(table, index, entry uint64) {
	binary.LittleEndian.PutUint64(m[table+index*8:], entry)
}

// index returns the index of an address in a table of a level.
func index(va uint64, level int) uint64 { return va >> (12 + 9*level) & 511 }

func mustSpace(t *testing.T, m memory, levels int) *Space {
	t.Helper()
	s, err := NewSpace(m, 0x1000, levels)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTranslate(t *testing.T) {
	const va = 0xffffffff81234567
	for name, tc := range map[string]struct {
		levels int
		leaf   int // level of the entry that maps
		entry  uint64
		want   Mapping
	}{
		"4 levels, 4 KiB": {4, 0, 0x5000 | present | 1<<63, Mapping{GPA: 0x5567, Length: 0xa99}},
		"4 levels, 2 MiB": {
			4, 1, 0x40000000 | present | large | 1<<12, Mapping{GPA: 0x40034567, Length: 0x1cba99},
		},
		"4 levels, 1 GiB": {
			4, 2, 0x80000000 | present | large, Mapping{GPA: 0x81234567, Length: 0x3edcba99},
		},
		"5 levels, 4 KiB": {5, 0, 0x5000 | present, Mapping{GPA: 0x5567, Length: 0xa99}},
		"5 levels, 2 MiB": {
			5, 1, 0x40000000 | present | large, Mapping{GPA: 0x40034567, Length: 0x1cba99},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := make(memory, 0x8000)
			table := uint64(0x1000)
			for level := tc.levels - 1; level > tc.leaf; level-- {
				m.set(table, index(va, level), table+0x1000|present)
				table += 0x1000
			}
			m.set(table, index(va, tc.leaf), tc.entry)
			s := mustSpace(t, m, tc.levels)
			if got, err := s.Translate(va); err != nil || got != tc.want {
				t.Fatalf("got %+v, %v, want %+v", got, err, tc.want)
			}
			for _, other := range []uint64{va - 1<<39, va ^ 1<<63, 0, 1 << 62} {
				if _, err := s.Translate(other); !errors.Is(err, ErrNotMapped) {
					t.Errorf("%#x: %v", other, err)
				}
			}
		})
	}
}

// changing is memory that calls change before each read.
type changing struct {
	memory
	reads  int
	change func(m memory, reads int)
}

func (c *changing) Read(p []byte, gpa uint64) error {
	c.reads++
	c.change(c.memory, c.reads)
	return c.memory.Read(p, gpa)
}

func TestSettledIgnoresPageTablesThatWereReused(t *testing.T) {
	const va = 0xffffffff81234567
	tables := func() memory {
		m := make(memory, 0x9000)
		for level := 3; level > 0; level-- {
			m.set(uint64(4-level)<<12, index(va, level), uint64(5-level)<<12|present)
		}
		m.set(0x4000, index(va, 0), 0x5000|present)
		return m
	}
	for name, tc := range map[string]struct {
		change func(m memory, reads int)
		want   uint64 // 0: ErrUnsettled
	}{
		"nothing": {func(memory, int) {}, 0x5567},
		// After the entry that leads to the last table was read, that table is freed
		// and reused. A new table has the mapping.
		"a table is reused": {func(m memory, reads int) {
			if reads == 4 {
				m.set(0x3000, index(va, 1), 0x6000|present)
				m.set(0x6000, index(va, 0), 0x5000|present)
				m.set(0x4000, index(va, 0), 0x7000|present)
			}
		}, 0x5567},
		"marks": {func(m memory, reads int) {
			m.set(0x4000, index(va, 0), 0x5000|present|uint64(reads%4)<<5)
		}, 0x5567},
		"everything, always": {func(m memory, reads int) {
			m.set(0x4000, index(va, 0), uint64(reads)<<12|present)
		}, 0},
	} {
		s, err := NewSpace(&changing{memory: tables(), change: tc.change}, 0x1000, 4)
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Settled(va)
		ok := err == nil && m.GPA == tc.want
		if tc.want == 0 {
			ok = errors.Is(err, ErrUnsettled)
		}
		if !ok {
			t.Errorf("%s: %#x, %v, want %#x", name, m.GPA, err, tc.want)
		}
	}
}

func TestTablesOutsideOfMemory(t *testing.T) {
	m := make(memory, 0x2000)
	m.set(0x1000, 511, 1<<50|present)
	if _, err := mustSpace(t, m, 4).Translate(0xffffffff80000000); !errors.Is(err, errOutside) {
		t.Fatal(err)
	}
	m.set(0x1000, 511, 0x1000|present|large) // reserved at this level
	if _, err := mustSpace(t, m, 4).Translate(0xffffffff80000000); !errors.Is(err, ErrNotMapped) {
		t.Fatal(err)
	}
	for _, levels := range []int{0, 3, 6} {
		if _, err := NewSpace(m, 0, levels); err == nil {
			t.Errorf("%d levels", levels)
		}
	}
	if _, err := NewSpace(m, 1<<60, 4); err == nil {
		t.Error("a root outside of physical memory")
	}
}

func TestTablesThatPointToThemselves(t *testing.T) {
	m := make(memory, 0x3000)
	for i := range uint64(512) {
		m.set(0x1000, i, 0x2000|present) // at the last level, this maps a page
	}
	m.set(0x1000, 511, 0x1000|present)
	for i := range uint64(PageSize) {
		m[0x2000+i] = 'x'
	}
	s := mustSpace(t, m, 4)
	if got, err := s.Translate(0xffffffffffffffff); err != nil || got.GPA != 0x1fff {
		t.Fatalf("%+v, %v", got, err)
	}
	// There is no zero byte, so only the limit ends the read.
	if _, err := s.String(0xffffffffffe00000, 100_000); err == nil {
		t.Fatal("a string without an end was read")
	}
}

func TestReadAcrossPages(t *testing.T) {
	m := make(memory, 0x9000)
	const va = 0xffff888000000000
	for level := 3; level > 0; level-- {
		table := uint64(4-level) * 0x1000
		m.set(table, index(va, level), table+0x1000|present)
	}
	m.set(0x4000, 0, 0x8000|present)
	m.set(0x4000, 1, 0x5000|present)
	copy(m[0x8ffa:], "begin ")
	copy(m[0x5000:], "end\x00")
	s := mustSpace(t, m, 4)
	if text, err := s.String(va+0xffa, 100); err != nil || text != "begin end" {
		t.Fatalf("%q, %v", text, err)
	}
	want := binary.LittleEndian.Uint64([]byte("begin en"))
	if word, err := s.Uint64(va + 0xffa); err != nil || word != want {
		t.Fatalf("%#x, %v", word, err)
	}
	if _, err := s.String(va+0xffa, 9); err == nil {
		t.Fatal("a string longer than its limit was read")
	}
	if _, err := s.Uint64(va + 0x1ffc); !errors.Is(err, ErrNotMapped) {
		t.Fatal(err)
	}
}
