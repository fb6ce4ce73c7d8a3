// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// kernel has the types of a synthetic kernel. Tests change them.
type kernel struct {
	page, folio, zone, area, node, section *btf.Struct
	more                                   []btf.Type
	enums                                  map[string]map[string]uint64
}

var (
	long    = &btf.Int{Name: "long", Size: 8}
	integer = &btf.Int{Name: "int", Size: 4}
	char    = &btf.Int{Name: "char", Size: 1}
)

func field(name string, typ btf.Type, offset uint32) btf.Member {
	return btf.Member{Name: name, Type: typ, Offset: btf.Bits(8 * offset)}
}

func array(typ btf.Type, n uint32) btf.Type {
	return &btf.Array{Index: integer, Type: typ, Nelems: n}
}

// newKernel returns the types of Linux 6.12.
func newKernel() *kernel {
	k := &kernel{}
	list := &btf.Struct{Size: 40, Members: []btf.Member{
		field("mapping", long, 16), field("private", long, 32),
	}}
	tail := &btf.Struct{Size: 8, Members: []btf.Member{field("compound_head", long, 0)}}
	k.page = &btf.Struct{Name: "page", Size: 64, Members: []btf.Member{
		field("flags", long, 0),
		{Offset: 64, Type: &btf.Union{Size: 40, Members: []btf.Member{{Type: list}, {Type: tail}}}},
		field("_mapcount", integer, 48), field("_refcount", integer, 52),
	}}
	k.folio = &btf.Struct{Name: "folio", Size: 256, Members: []btf.Member{
		field("_flags_1", long, 64),
		field("_large_mapcount", integer, 80), field("_entire_mapcount", integer, 84),
	}}
	k.area = &btf.Struct{Name: "free_area", Size: 88, Members: []btf.Member{
		field("nr_free", long, 80),
	}}
	k.zone = &btf.Struct{Name: "zone", Size: 1536, Members: []btf.Member{
		field("zone_start_pfn", long, 144), field("managed_pages", long, 152),
		field("spanned_pages", long, 160), field("present_pages", long, 168),
		field("name", long, 184), field("free_area", array(k.area, 11), 256),
		field("vm_stat", array(long, 10), 1344),
	}}
	k.node = &btf.Struct{Name: "pglist_data", Size: 8000, Members: []btf.Member{
		field("node_zones", array(k.zone, 5), 0), field("node_id", integer, 7900),
	}}
	k.section = &btf.Struct{Name: "mem_section", Size: 16, Members: []btf.Member{
		field("section_mem_map", long, 0),
	}}
	k.enums = map[string]map[string]uint64{
		"zone_stat_item": {"NR_FREE_PAGES": 0},
		"zone_type":      {"__MAX_NR_ZONES": 5},
		"system_states":  {"SYSTEM_RUNNING": 3},
		"pageflags": {
			"PG_locked": 0, "PG_writeback": 1, "PG_uptodate": 3, "PG_dirty": 4, "PG_lru": 5,
			"PG_head": 6, "PG_swapcache": 10, "PG_reserved": 13, "PG_swapbacked": 17,
		},
		"pagetype": {
			"PGTY_buddy": 0xf0, "PGTY_offline": 0xf1, "PGTY_table": 0xf2, "PGTY_guard": 0xf3,
			"PGTY_hugetlb": 0xf4, "PGTY_slab": 0xf5,
		},
	}
	return k
}

// as6_1 changes the types to those of Linux 6.1.
func (k *kernel) as6_1() {
	delete(k.enums, "pagetype")
	k.enums["pageflags"]["PG_slab"] = 9
	k.enums["compound_dtor_id"] = map[string]uint64{"HUGETLB_PAGE_DTOR": 2}
	k.folio.Members = nil
	k.page.Members = append(k.page.Members, field("compound_dtor", char, 16),
		field("compound_order", char, 17), field("compound_mapcount", integer, 20))
}

func (k *kernel) blob(tb testing.TB) []byte {
	tb.Helper()
	types := []btf.Type{k.page, k.folio, k.zone, k.area, k.node, k.section}
	types = append(types, k.more...)
	for name, values := range k.enums {
		e := &btf.Enum{Name: name, Size: 4}
		for value, n := range values {
			e.Values = append(e.Values, btf.EnumValue{Name: value, Value: n})
		}
		types = append(types, e)
	}
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		tb.Fatal(err)
	}
	blob, err := b.Marshal(nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return blob
}

func TestLoad6_12(t *testing.T) {
	k, err := Load(newKernel().blob(t), 6, 12)
	if err != nil {
		t.Fatal(err)
	}
	p := k.Page
	if p.Size != 64 || p.Shift != 6 || p.Mapping != 24 || p.Private != 40 || p.Head != 8 ||
		p.HeadMask {
		t.Errorf("page %+v", p)
	}
	if !p.Type.Buddy.Match(0xf0<<24) || p.Type.Buddy.Match(0xf0<<24|1) ||
		!p.Type.Slab.Match(0xf5<<24|0xffff) {
		t.Errorf("types %+v", p.Type)
	}
	for word, want := range map[uint32]bool{
		0xffffffff: false, 0: false, 5: false,
		0xf0 << 24: true, 0xfe << 24: true, 0xff << 24: false,
	} {
		if p.Type.IsType(word) != want {
			t.Errorf("%#x is a type: %v", word, !want)
		}
	}
	if l := p.Large; l.Order != 0 || !l.OrderInWord || l.Mapcount != 16 || l.Entire != 20 ||
		l.Destructor != -1 {
		t.Errorf("large %+v", l)
	}
	if z := k.Zone; z.Orders != 11 || z.FreeAreaCount != 80 || z.FreePages != 1344 ||
		z.ZoneBits() != 3 {
		t.Errorf("zone %+v", z)
	}
	if k.Node.Count != 5 || k.Node.ID != 7900 || k.Section.Size != 16 || k.Running != 3 {
		t.Errorf("node %+v section %+v running %d", k.Node, k.Section, k.Running)
	}
}

func TestLoad6_1(t *testing.T) {
	types := newKernel()
	types.as6_1()
	k, err := Load(types.blob(t), 6, 1)
	if err != nil {
		t.Fatal(err)
	}
	p := k.Page
	if !p.Type.Buddy.Match(0xffffff7f) || p.Type.Buddy.Match(0xffffffff) ||
		!p.Type.Table.Match(0xfffffdff) ||
		p.Type.Table.Match(0xffffff7f) ||
		p.Type.Slab.Mask != 0 ||
		p.Flag.Slab != 1<<9 {
		t.Errorf("types %+v", p.Type)
	}
	for word, want := range map[uint32]bool{
		0xffffffff: false, 0: false, 0xffffff7f: true, 0xfffffdff: true, 0xffffff80: false,
	} {
		if p.Type.IsType(word) != want {
			t.Errorf("%#x is a type: %v", word, !want)
		}
	}
	if l := p.Large; l.Order != 17 || l.OrderInWord || l.Mapcount != -1 || l.Entire != 20 ||
		l.Destructor != 16 ||
		l.HugetlbNumber != 2 {
		t.Errorf("large %+v", l)
	}
}

func TestLoad7_1HasMasks(t *testing.T) {
	types := newKernel()
	union := types.page.Members[1].Type.(*btf.Union)
	union.Members[1].Type.(*btf.Struct).Members[0].Name = "compound_info"
	k, err := Load(types.blob(t), 7, 1)
	if err != nil || !k.Page.HeadMask || k.Page.Head != 8 {
		t.Fatalf("%+v, %v", k, err)
	}
}

func TestKernelsThatAreRefused(t *testing.T) {
	for name, change := range map[string]func(k *kernel){
		"no states":          func(k *kernel) { delete(k.enums, "system_states") },
		"no struct page":     func(k *kernel) { k.page.Name = "paper" },
		"no mapping":         func(k *kernel) { k.page.Members = k.page.Members[:1] },
		"field outside":      func(k *kernel) { k.page.Members[2].Offset = 8 * 62 },
		"field at a bit":     func(k *kernel) { k.page.Members[2].Offset = 3 },
		"huge struct page":   func(k *kernel) { k.page.Size = 4096 },
		"odd struct page":    func(k *kernel) { k.page.Size = 63 },
		"no orders":          func(k *kernel) { k.zone.Members[5].Type = long },
		"too many orders":    func(k *kernel) { k.zone.Members[5].Type = array(k.area, 40) },
		"too many zones":     func(k *kernel) { k.node.Members[0].Type = array(k.zone, 100) },
		"no folio":           func(k *kernel) { k.folio.Name = "leaf" },
		"no dirty flag":      func(k *kernel) { delete(k.enums["pageflags"], "PG_dirty") },
		"flag of bit 64":     func(k *kernel) { k.enums["pageflags"]["PG_dirty"] = 64 },
		"type that is none":  func(k *kernel) { k.enums["pagetype"]["PGTY_table"] = 0xff },
		"no type of tables":  func(k *kernel) { delete(k.enums["pagetype"], "PGTY_table") },
		"types not told":     func(k *kernel) { delete(k.enums, "pagetype") },
		"no mem_section":     func(k *kernel) { k.section.Members = nil },
		"section not a word": func(k *kernel) { k.section.Size = 4 },
		"huge pages untold":  func(k *kernel) { k.as6_1(); delete(k.enums, "compound_dtor_id") },
		"destructor nowhere": func(k *kernel) { k.as6_1(); k.page.Members[4].Name = "x" },
	} {
		k := newKernel()
		change(k)
		minor := 12
		if _, ok := k.enums["pagetype"]; !ok && k.enums["pageflags"]["PG_slab"] != 0 {
			minor = 1
		}
		if _, err := Load(k.blob(t), 6, minor); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(newKernel().blob(f), 6, 12)
	old := newKernel()
	old.as6_1()
	f.Add(old.blob(f), 6, 1)
	young := newKernel()
	young.withGenerations()
	f.Add(young.blob(f), 6, 12)
	f.Fuzz(func(t *testing.T, blob []byte, major, minor int) {
		k, err := Load(blob, major, minor)
		if err != nil {
			return
		}
		p := k.Page
		for name, at := range map[string]int{
			"flags": p.Flags + 8, "mapping": p.Mapping + 8, "private": p.Private + 8,
			"head":     p.Head + 8,
			"mapcount": p.Mapcount + 4, "refcount": p.Refcount + 4, "order": p.Large.Order + 1,
			"large": p.Large.Mapcount + 4, "entire": p.Large.Entire + 4,
			"destructor": p.Large.Destructor + 1,
		} {
			if at < 0 || at > p.Size {
				t.Errorf("%s ends at %d of %d", name, at, p.Size)
			}
		}
		if l := k.LRU; l.Count > 0 && (l.Count > 16 || l.Memcg < 0 || l.Memcg+8 > p.Size ||
			l.Bits > 5 || l.Below > 32 || l.NodeNewest+8 > k.Node.Size) {
			t.Errorf("generations %+v", l)
		}
		if z := k.Zone; z.FreePages+8 > z.Size || z.FreeArea+z.Orders*z.FreeAreaSize > z.Size ||
			z.FreeAreaCount+8 > z.FreeAreaSize {
			t.Errorf("zone %+v", z)
		}
	})
}
