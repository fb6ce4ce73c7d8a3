// SPDX-License-Identifier: Apache-2.0

package kallsyms

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// image is kernel memory that begins at an address.
type image struct {
	at      uint64
	content []byte
}

var errOutside = errors.New("outside of the image")

func (m image) Read(p []byte, va uint64) error {
	if va < m.at || va-m.at > uint64(len(m.content)) ||
		uint64(len(p)) > uint64(len(m.content))-(va-m.at) {
		return errOutside
	}
	copy(p, m.content[va-m.at:])
	return nil
}

// note is a map of symbols.
type note map[string]uint64

func (n note) Symbol(name string) (uint64, error) {
	if address, ok := n[name]; ok {
		return address, nil
	}
	return 0, errors.New("not in the note")
}

const start = 0xffffffff81000000

// symbol is a symbol of a synthetic kernel.
type symbol struct {
	name    string
	address uint64
}

var symbols = []symbol{
	{"per_cpu_thing", 0x1b000}, {"_stext", start}, {"init_uts_ns", start + 0x812340},
	{"node_data", start + 0x900000}, {"twice", start + 0x10}, {"twice", start + 0x20},
	{strings.Repeat("long", 60), start + 0x30},
}

// build makes a table. way says how it stores addresses: percpu, base or place.
func build(way string, symbols []symbol) (image, note) {
	const base = start
	m := image{at: start, content: make([]byte, 1<<20)}
	n := note{"_stext": start, "init_uts_ns": start + 0x812340, "absent": 1}
	put := func(name string, offset int) []byte {
		n[name] = start + uint64(offset)
		return m.content[offset:]
	}
	binary.LittleEndian.PutUint32(put("kallsyms_num_syms", 0x100), uint32(len(symbols)))
	index, table := put("kallsyms_token_index", 0x1000), put("kallsyms_token_table", 0x2000)
	at := 0
	for code := range 256 {
		token := string(rune(code))
		if code == 0 || code > 127 {
			token = "long" // a token of several characters
		}
		binary.LittleEndian.PutUint16(index[2*code:], uint16(at))
		at += copy(table[at:], token) + 1
	}
	names := put("kallsyms_names", 0x8000)
	offsets := put("kallsyms_offsets", 0x4000)
	if way != "place" {
		binary.LittleEndian.PutUint64(put("kallsyms_relative_base", 0x200), base)
	}
	at = 0
	for i, s := range symbols {
		compressed := "D" + s.name
		if len(compressed) < 0x80 {
			names[at] = byte(len(compressed))
			at++
		} else {
			names[at], names[at+1] = byte(len(compressed)&0x7f|0x80), byte(len(compressed)>>7)
			at += 2
		}
		at += copy(names[at:], compressed)
		offset := int64(s.address - base)
		switch {
		case way == "percpu" && s.address < base:
			offset = int64(s.address)
		case way == "percpu":
			offset = -1 - offset
		case way == "place":
			offset = int64(s.address - (n["kallsyms_offsets"] + uint64(4*i)))
		}
		binary.LittleEndian.PutUint32(offsets[4*i:], uint32(offset))
	}
	return m, n
}

func TestFindByEachWayToStoreAddresses(t *testing.T) {
	for _, way := range []string{"percpu", "base", "place"} {
		t.Run(way, func(t *testing.T) {
			m, n := build(way, symbols)
			table, err := Read(m, n, "_stext", "init_uts_ns", "absent")
			if err != nil {
				t.Fatal(err)
			}
			long := strings.Repeat("long", 60)
			found := table.Find("node_data", "twice", long, "none", "per_cpu_thing")
			known := map[string]uint64{"node_data": start + 0x900000, long: start + 0x30}
			for name, want := range known {
				if got, err := found.Address(name); err != nil || got != want {
					t.Errorf("%s: %#x, %v, want %#x", name, got, err, want)
				}
			}
			if _, err := found.Address("none"); !errors.Is(err, ErrNoSymbol) {
				t.Errorf("none: %v", err)
			}
			if _, err := found.Address("twice"); !errors.Is(err, ErrAmbiguous) {
				t.Errorf("twice: %v", err)
			}
			if got, err := found.Address("per_cpu_thing"); way == "percpu" &&
				(err != nil || got != 0x1b000) {
				t.Errorf("per-CPU symbol: %#x, %v", got, err)
			}
		})
	}
}

func TestTablesThatAreRefused(t *testing.T) {
	for name, damage := range map[string]func(m image, n note){
		"witness elsewhere":   func(_ image, n note) { n["_stext"]++ },
		"one witness":         func(_ image, n note) { delete(n, "init_uts_ns") },
		"no offsets":          func(_ image, n note) { delete(n, "kallsyms_offsets") },
		"offsets outside":     func(_ image, n note) { n["kallsyms_offsets"] = 0 },
		"names outside":       func(_ image, n note) { n["kallsyms_names"] = start + 1<<20 - 100 },
		"no symbols":          func(m image, _ note) { clear(m.content[0x100:0x104]) },
		"too many symbols":    func(m image, _ note) { m.content[0x103] = 0x7f },
		"more than are there": func(m image, _ note) { m.content[0x102] = 2 },
		"token without end": func(m image, _ note) {
			for i := range 0x2000 {
				m.content[0x2000+i] = 'x'
			}
		},
	} {
		m, n := build("percpu", symbols)
		damage(m, n)
		if _, err := Read(m, n, "_stext", "init_uts_ns"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, way := range []string{"percpu", "base", "place"} {
		m, _ := build(way, symbols)
		f.Add(m.content[:0x9000], way == "place")
	}
	f.Fuzz(func(t *testing.T, content []byte, place bool) {
		_, n := build("percpu", nil)
		if place {
			delete(n, "kallsyms_relative_base")
		}
		table, err := Read(image{at: start, content: content}, n, "_stext", "init_uts_ns")
		if err != nil {
			return
		}
		for name, addresses := range table.Find("_stext", "init_uts_ns", "node_data") {
			if want, err := n.Symbol(name); err == nil && len(addresses) == 1 &&
				addresses[0] != want {
				t.Fatalf("%s is at %#x, and %#x by the note", name, addresses[0], want)
			}
		}
	})
}
