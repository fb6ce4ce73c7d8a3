// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"encoding/binary"
	"testing"

	"github.com/fbpp-project/fbpp/device/introspect/layout"
)

// linux6_1 is the layout of struct page in Linux 6.1.
func linux6_1() *layout.Page {
	bit := func(b uint32) layout.TypeMark {
		return layout.TypeMark{Mask: 0xf0000000 | b, Value: 0xf0000000}
	}
	return &layout.Page{
		Size: 64, Shift: 6, Mapping: 24, Private: 40, Mapcount: 48, Refcount: 52, Head: 8,
		Flag: layout.Flags{
			Locked: 1, Uptodate: 4, LRU: 16, Slab: 512, Head: 1 << 16, SwapBacked: 1 << 19,
		},
		Type: layout.Types{
			Buddy: layout.TypeMark{Mask: 1<<32 - 1, Value: 0xffffff7f},
			Table: bit(0x200), First: 0xf0000000, End: 1<<32 - 128,
		},
		Large: layout.Large{Order: 17, Mapcount: -1, Entire: 20, Destructor: 16, HugetlbNumber: 2},
	}
}

// linux7_3 is the layout of struct page in Linux 7.3.
func linux7_3() *layout.Page {
	p := linux6_1()
	value := func(v uint32) layout.TypeMark {
		return layout.TypeMark{Mask: 0xff << 24, Value: v << 24}
	}
	p.HeadMask = true
	p.Type = layout.Types{
		Buddy: layout.TypeMark{Mask: 1<<32 - 1, Value: 0xf0 << 24}, Table: value(0xf2),
		Hugetlb: value(0xf4), Slab: value(0xf5), LargeKmalloc: value(0xf8),
		First: 0x80 << 24, End: 0xff << 24,
	}
	p.Large = layout.Large{Order: 0, OrderInWord: true, Mapcount: 16, Entire: 24, Destructor: -1}
	return p
}

// raw returns a struct page.
func raw(flags, head, mapping uint64, word, refcount uint32) []byte {
	p := make([]byte, 64)
	binary.LittleEndian.PutUint64(p, flags)
	binary.LittleEndian.PutUint64(p[8:], head)
	binary.LittleEndian.PutUint64(p[24:], mapping)
	binary.LittleEndian.PutUint32(p[48:], word)
	binary.LittleEndian.PutUint32(p[52:], refcount)
	return p
}

const none = 0xffffffff // no type, and not mapped

func TestPageTypesOfLinux6_1(t *testing.T) {
	c := NewClassifier(linux6_1())
	for name, tc := range map[string]struct {
		page []byte
		want Page
	}{
		"table":     {raw(0, 0, 0, 0xfffffdff, 1), Page{Class: PageTable}},
		"slab":      {raw(512, 0, 0xffff000000000001, none, 1), Page{Class: Slab}},
		"mapped":    {raw(16|1<<19, 0, 0xffff000000000001, 0, 1), Page{Anonymous, Mapped}},
		"clean":     {raw(16|4, 0, 0xffff000000000000, none, 1), Page{File, Clean}},
		"per CPU":   {raw(0, 0, 0, none, 0), Page{Class: Unknown}},
		"big count": {raw(16|4, 0, 0xffff000000000000, 1<<30, 1), Page{File, Mapped}},
	} {
		if got := c.Single(tc.page); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
	if order, free := c.FreeOrder(raw(0, 0, 0, 0xffffff7f, 0)); !free || order != 0 {
		t.Error("a free block was not recognised")
	}
	if _, free := c.FreeOrder(raw(0, 0, 0, none, 0)); free {
		t.Error("a page in use is a free block")
	}
}

func TestLargePagesOfEachKind(t *testing.T) {
	old, current := NewClassifier(linux6_1()), NewClassifier(linux7_3())
	head := raw(16|4|1<<16, 0, 0xffff000000000000, none, 1)
	second := func(set func(p []byte)) []byte {
		p := raw(0, 0, 0, none, 0)
		for i := 16; i < 28; i++ {
			p[i] = 0xff // mapcounts of -1: not mapped
		}
		set(p)
		return p
	}
	for name, tc := range map[string]struct {
		c      *Classifier
		head   []byte
		second []byte
		want   Page
		order  int
	}{
		"6.1 hugetlb": {
			old, head, second(func(p []byte) { p[16], p[17] = 2, 9 }), Page{Class: Hugetlb}, 9,
		},
		"6.1 file": {
			old, head, second(func(p []byte) { p[16], p[17] = 1, 4 }), Page{File, Clean}, 4,
		},
		"6.1 mapped whole": {
			old, head, second(func(p []byte) { p[16], p[17] = 1, 9; clear(p[20:24]) }),
			Page{File, Mapped}, 9,
		},
		"7.3 file": {current, head, second(func(p []byte) { p[0] = 9 }), Page{File, Clean}, 9},
		"7.3 mapped in part": {
			current, head, second(func(p []byte) { p[0] = 9; clear(p[16:20]) }), Page{File, Mapped},
			9,
		},
		"7.3 hugetlb, mapped": {
			current, raw(1<<16, 0, 0, 0xf4<<24, 1),
			second(func(p []byte) { p[0] = 18; clear(p[24:28]) }),
			Page{Hugetlb, Mapped}, 18,
		},
		"7.3 slab": {
			current, raw(1<<16, 0, 1, 0xf5<<24|77, 1), second(func(p []byte) { p[0] = 3 }),
			Page{Class: Slab}, 3,
		},
		"7.3 kmalloc": {
			current, raw(1<<16, 0, 0, 0xf8<<24, 1), second(func(p []byte) { p[0] = 3 }),
			Page{Class: Kernel}, 3,
		},
	} {
		if got := tc.c.Large(tc.head, tc.second); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
		if got := tc.c.LargeOrder(tc.second); got != tc.order {
			t.Errorf("%s: order %d", name, got)
		}
	}
	if !old.PartMapped(raw(0, 0, 0, 0, 0)) || old.PartMapped(raw(0, 0, 0, none, 0)) ||
		current.PartMapped(raw(0, 0, 0, 0, 0)) {
		t.Error("PartMapped is wrong for one of the kernels")
	}
}

func TestTailNamesItsHead(t *testing.T) {
	old, current := NewClassifier(linux6_1()), NewClassifier(linux7_3())
	for name, tc := range map[string]struct {
		c    *Classifier
		info uint64
		want Head
		tail bool
	}{
		"no tail":          {old, 0xffffea0000000000, Head{}, false},
		"pointer":          {old, 0xffffea0000000041, Head{Address: 0xffffea0000000040}, true},
		"pointer of 7.1":   {current, 0xffffea0000000041, Head{Address: 0xffffea0000000040}, true},
		"mask of order 1":  {current, 1<<64 - 1<<7 | 1, Head{Order: 1}, true},
		"mask of order 9":  {current, 1<<64 - 1<<15 | 1, Head{Order: 9}, true},
		"mask of order 18": {current, 1<<64 - 1<<24 | 1, Head{Order: 18}, true},
		"mask of order 0":  {current, 1<<64 - 1<<6 | 1, Head{}, false},
		"mask of order 40": {current, 1<<64 - 1<<46 | 1, Head{}, false},
		"mask before 7.1":  {old, 1<<64 - 1<<15 | 1, Head{Address: 1<<64 - 1<<15}, true},
		"all ones":         {current, 1<<64 - 1, Head{}, false},
	} {
		if got, tail := tc.c.Tail(raw(0, tc.info, 0, none, 0)); got != tc.want || tail != tc.tail {
			t.Errorf("%s: %+v, %v", name, got, tail)
		}
	}
}

func TestClassesHaveNames(t *testing.T) {
	seen := make(map[string]bool)
	for class := range Classes {
		name := class.String()
		if name == "" || seen[name] {
			t.Errorf("class %d: %q", class, name)
		}
		seen[name] = true
	}
	if Classes.String() != "invalid" {
		t.Error("an invalid class has a name")
	}
}
