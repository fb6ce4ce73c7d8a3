// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// Where a synthetic kernel has its things, in physical memory.
const (
	synTrampoline = 0x9000
	synNote       = 8 << 20
	synImage      = 16 << 20 // mapped at imageStart + synImage
	synMemMap     = 32 << 20

	// In the image.
	synRoot, synImageL3, synImageL2          = 0, 0x1000, 0x2000
	synDirectL3, synMapL3, synMapL2          = 0x3000, 0x4000, 0x5000 // the last is several
	synSymbols                               = 0x100000
	synBTF                                   = 0x200000
	synVariables, synNodeTable, synZoneNames = 0x300000, 0x301000, 0x303000
	synNode, synRoots, synSections           = 0x304000, 0x310000, 0x320000
	synState, synPanicCPU, synKexec          = 64, 72, 80 // among the variables
	synImageSize                             = 4 << 20

	synDirect  = 0xffff888000000000 // virtual
	synVmemmap = 0xffffea0000000000

	synFirstPFN   = 1 << 20 // of the memory that has struct pages
	synPageSize   = 64
	synZoneSize   = 512
	synOrders     = 11
	synSectionPFN = 1 << 15
)

// Flags and types of a synthetic kernel, as of Linux 6.12.
const (
	synLocked     = 1 << 0
	synWriteback  = 1 << 1
	synUptodate   = 1 << 3
	synDirty      = 1 << 4
	synLRU        = 1 << 5
	synHead       = 1 << 6
	synSwapCache  = 1 << 10
	synReserved   = 1 << 13
	synSwapBacked = 1 << 17

	synRunning = 3 // SYSTEM_RUNNING

	synZone      = 2 // ZONE_NORMAL
	synZoneFlags = synZone << 51

	synNoType  = 0xffffffff
	synBuddy   = 0xf0 << 24
	synOffline = 0xf1 << 24
	synTable   = 0xf2 << 24
	synHugetlb = 0xf4 << 24
	synSlab    = 0xf5 << 24
)

// zeroes is memory that nobody wrote to.
type zeroes struct{}

func (zeroes) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// synthetic is a guest with a kernel that is laid out by hand: 4 levels of page
// tables, one node with one zone, and a memory map whose content a test
// decides.
type synthetic struct {
	low    []byte // physical memory from 0 on
	pages  uint64 // that have struct pages, from synFirstPFN on
	mapped uint64 // struct pages that the memory map has; it repeats itself
	facts  map[string]string
}

// newSynthetic makes a guest whose struct pages repeat after so many.
func newSynthetic(tb testing.TB, pages, mapped uint64) *synthetic {
	tb.Helper()
	s := &synthetic{low: make([]byte, synMemMap+mapped*synPageSize), pages: pages, mapped: mapped}
	s.facts = map[string]string{
		"OSRELEASE": "6.12.0-synthetic", "PAGESIZE": "4096", "SIZE(page)": "64",
		"SIZE(zone)": fmt.Sprint(synZoneSize), "SIZE(pglist_data)": fmt.Sprint(5*synZoneSize + 8),
		"SIZE(mem_section)": "16",
		"NUMBER(phys_base)": "0", "NUMBER(pgtable_l5_enabled)": "0",
		"NUMBER(SECTION_SIZE_BITS)": "27", "NUMBER(MAX_PHYSMEM_BITS)": "46",
		"LENGTH(node_data)": "1024",
	}
	s.putTables()
	s.putSymbols()
	copy(s.image(synBTF), mustBTF(tb))
	s.putNode()
	s.putNote()
	s.set(0, structPage{})
	memMap := s.low[synMemMap:]
	for n := synPageSize; n < len(memMap); n *= 2 {
		copy(memMap[n:], memMap[:n])
	}
	return s
}

func (s *synthetic) image(offset int) []byte { return s.low[synImage+offset:] }

// put writes a word of the image.
func (s *synthetic) put(offset int, word uint64) {
	binary.LittleEndian.PutUint64(s.image(offset), word)
}

// entry writes an entry of a page table in the image.
func (s *synthetic) entry(table int, va uint64, level int, entry uint64) {
	s.put(table+int(va>>(12+9*level)&511)*8, entry)
}

func (s *synthetic) putTables() {
	const present, large = 1 | 1<<5, 1<<7 | 1
	s.entry(synRoot, imageStart, 3, synImage+synImageL3|present)
	s.entry(synImageL3, imageStart, 2, synImage+synImageL2|present)
	for at := uint64(0); at < synImageSize; at += 2 << 20 {
		s.entry(synImageL2, imageStart+synImage+at, 1, synImage+at|large)
	}
	s.entry(synRoot, synDirect, 3, synImage+synDirectL3|present)
	s.entry(synDirectL3, synDirect, 2, large) // the first GiB
	first := uint64(synVmemmap + synFirstPFN*synPageSize)
	s.entry(synRoot, first, 3, synImage+synMapL3|present)
	const perTable, perEntry = 1 << 30, 2 << 20
	for at := uint64(0); at < s.pages*synPageSize; at += perEntry {
		table := synMapL2 + int((first+at)>>30-first>>30)*0x1000
		s.entry(synMapL3, first+at, 2, synImage+uint64(table)|present)
		s.entry(table, first+at, 1, synMemMap+at%(s.mapped*synPageSize)|large)
	}
	// The trampoline copies the upper half, before the processor marked it.
	copy(s.low[synTrampoline:], s.image(synRoot)[:4096])
	binary.LittleEndian.PutUint64(s.low[synTrampoline+lastEntry*8:], synImage+synImageL3|1)
}

// putSymbols writes kallsyms, with addresses relative to a base.
func (s *synthetic) putSymbols() {
	const base = imageStart + synImage
	at := func(offset int) uint64 { return base + uint64(offset) }
	symbols := map[string]uint64{
		"_stext": base, "init_uts_ns": at(synVariables + 0x100),
		symbolNote: at(synVariables), symbolVmemmap: at(synVariables + 8),
		symbolSections: at(synVariables + 16), symbolJiffies: at(synVariables + 24),
		symbolInitFree: at(synVariables + 32), symbolInitAlloc: at(synVariables + 40),
		symbolPoison: at(synVariables + 48), symbolDebug: at(synVariables + 56),
		symbolState: at(synVariables + synState), symbolPanicCPU: at(synVariables + synPanicCPU),
		symbolKexec: at(synVariables + synKexec), symbolNodes: at(synNodeTable),
		symbolBTF: at(synBTF), symbolBTFEnd: at(synBTF) + uint64(len(mustBTF(nil))),
	}
	for name, offset := range map[string]int{
		"kallsyms_num_syms": 0, "kallsyms_relative_base": 8, "kallsyms_token_index": 0x1000,
		"kallsyms_token_table": 0x2000, "kallsyms_offsets": 0x4000, "kallsyms_names": 0x8000,
	} {
		s.fact("SYMBOL("+name+")", at(synSymbols+offset))
	}
	s.fact("SYMBOL(_stext)", base)
	s.fact("SYMBOL(init_uts_ns)", symbols["init_uts_ns"])
	s.fact("SYMBOL(swapper_pg_dir)", base)
	binary.LittleEndian.PutUint32(s.image(synSymbols), uint32(len(symbols)))
	s.put(synSymbols+8, base)
	for code := range 256 {
		binary.LittleEndian.PutUint16(s.image(synSymbols + 0x1000)[2*code:], uint16(2*code))
		s.image(synSymbols + 0x2000)[2*code] = byte(code)
	}
	names, i := s.image(synSymbols+0x8000), 0
	for name, address := range symbols {
		binary.LittleEndian.PutUint32(s.image(synSymbols + 0x4000)[4*i:], uint32(address-base))
		names[0] = byte(len(name) + 1)
		n := copy(names[1:], "D"+name)
		names, i = names[1+n:], i+1
	}
}

func (s *synthetic) fact(key string, value uint64) { s.facts[key] = fmt.Sprintf("%x", value) }

func (s *synthetic) putNode() {
	const base = imageStart + synImage
	s.put(synVariables, synDirect+synNote)
	s.put(synVariables+8, synVmemmap)
	s.put(synVariables+16, base+synRoots)
	s.put(synVariables+synState, synRunning)
	s.put(synVariables+synPanicCPU, noCPU)
	s.put(synNodeTable, base+synNode)
	first := synFirstPFN / synSectionPFN
	for n := first; uint64(n)*synSectionPFN < synFirstPFN+s.pages; n++ {
		const perRoot = 256
		root := synSections + n/perRoot*4096
		s.put(synRoots+n/perRoot*8, base+uint64(root))
		s.put(root+n%perRoot*16, synVmemmap|sectionHasMap|sectionOnline|1)
	}
	zone := synNode + synZone*synZoneSize
	copy(s.image(synZoneNames), "Normal\x00")
	for offset, word := range map[int]uint64{
		0: base + synZoneNames, 8: synFirstPFN, 16: s.pages, 24: s.pages, 32: s.pages,
	} {
		s.put(zone+offset, word)
	}
}

// putNote writes the note of the facts.
func (s *synthetic) putNote() { putNote(s.low[synNote:], s.facts) }

func putNote(at []byte, facts map[string]string) {
	var text strings.Builder
	fmt.Fprintf(&text, "OSRELEASE=%s\n", facts["OSRELEASE"])
	for key, value := range facts {
		fmt.Fprintf(&text, "%s=%s\n", key, value)
	}
	clear(at[:8192])
	binary.LittleEndian.PutUint32(at, 11)
	binary.LittleEndian.PutUint32(at[4:], uint32(text.Len()))
	copy(at[12:], "VMCOREINFO")
	copy(at[24:], text.String())
}

// structPage is the content of one.
type structPage struct {
	flags, head, mapping, private uint64
	word                          uint32 // type or mapcount; 0: neither
	refcount                      uint32
	large                         uint64 // of a second page: its flags word
}

// set writes the struct page of the n-th page.
func (s *synthetic) set(n uint64, p structPage) {
	b := s.low[synMemMap+n*synPageSize:][:synPageSize]
	clear(b)
	if p.word == 0 {
		p.word = synNoType
	}
	binary.LittleEndian.PutUint64(b, p.flags|p.large|synZoneFlags)
	binary.LittleEndian.PutUint64(b[8:], p.head)
	binary.LittleEndian.PutUint64(b[24:], p.mapping)
	binary.LittleEndian.PutUint64(b[40:], p.private)
	binary.LittleEndian.PutUint32(b[48:], p.word)
	binary.LittleEndian.PutUint32(b[52:], p.refcount)
	if p.large != 0 { // of what is not mapped: counts of -1
		binary.LittleEndian.PutUint64(b[16:], 1<<64-1)
	}
}

func (s *synthetic) setAll(f func(n uint64) structPage) {
	for n := range s.mapped {
		s.set(n, f(n))
	}
}

// setLarge writes a compound page.
func (s *synthetic) setLarge(n uint64, order int, head structPage) {
	head.flags |= synHead
	s.set(n, head)
	for i := uint64(1); i < 1<<order && n+i < s.mapped; i++ {
		tail := structPage{head: synVmemmap + (synFirstPFN+n)*synPageSize | 1}
		if i == 1 {
			tail.large = uint64(order)
		}
		s.set(n+i, tail)
	}
}

// memory returns the guest's memory: low, and that with the struct pages.
func (s *synthetic) memory(tb testing.TB) *physmem.Memory {
	return s.memoryIn(tb, bytes.NewReader(s.low))
}

// memoryIn is memory whose low part is read from elsewhere.
func (s *synthetic) memoryIn(tb testing.TB, low physmem.Source) *physmem.Memory {
	tb.Helper()
	m, err := physmem.New([]physmem.Region{
		{Size: uint64(len(s.low)), Source: low},
		{GPA: synFirstPFN << pageShift, Size: s.pages << pageShift, Source: zeroes{}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// locate finds the kernel by its hint.
func (s *synthetic) locate(tb testing.TB) *Kernel {
	tb.Helper()
	k, err := Locate(tb.Context(), s.memory(tb), Options{Hint: synNote})
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// mustBTF returns the types of the synthetic kernel.
func mustBTF(tb testing.TB) []byte {
	long := &btf.Int{Name: "unsigned long", Size: 8}
	integer := &btf.Int{Name: "unsigned int", Size: 4}
	field := func(name string, typ btf.Type, offset uint32) btf.Member {
		return btf.Member{Name: name, Type: typ, Offset: btf.Bits(8 * offset)}
	}
	array := func(typ btf.Type, n uint32) btf.Type {
		return &btf.Array{Index: integer, Type: typ, Nelems: n}
	}
	enum := func(name string, values map[string]uint64) btf.Type {
		e := &btf.Enum{Name: name, Size: 4}
		for value, n := range values {
			e.Values = append(e.Values, btf.EnumValue{Name: value, Value: n})
		}
		return e
	}
	page := &btf.Struct{Name: "page", Size: 64, Members: []btf.Member{
		field("flags", long, 0),
		{Type: &btf.Union{Size: 40, Members: []btf.Member{
			{
				Type: &btf.Struct{
					Size:    40,
					Members: []btf.Member{field("mapping", long, 16), field("private", long, 32)},
				},
			},
			{Type: &btf.Struct{Size: 8, Members: []btf.Member{field("compound_head", long, 0)}}},
		}}, Offset: 8 * 8},
		field("_mapcount", integer, 48), field("_refcount", integer, 52),
	}}
	folio := &btf.Struct{Name: "folio", Size: 128, Members: []btf.Member{
		field("page", page, 0), field("_flags_1", long, 64),
		field("_large_mapcount", integer, 80), field("_entire_mapcount", integer, 84),
	}}
	area := &btf.Struct{
		Name:    "free_area",
		Size:    24,
		Members: []btf.Member{field("nr_free", long, 16)},
	}
	zone := &btf.Struct{Name: "zone", Size: synZoneSize, Members: []btf.Member{
		field("name", long, 0), field("zone_start_pfn", long, 8), field("managed_pages", long, 16),
		field("spanned_pages", long, 24), field("present_pages", long, 32),
		field("free_area", array(area, synOrders), 40), field("vm_stat", array(long, 4), 400),
	}}
	node := &btf.Struct{Name: "pglist_data", Size: 5*synZoneSize + 8, Members: []btf.Member{
		field("node_zones", array(zone, 5), 0), field("node_id", integer, 5*synZoneSize),
	}}
	section := &btf.Struct{
		Name:    "mem_section",
		Size:    16,
		Members: []btf.Member{field("section_mem_map", long, 0)},
	}
	b, err := btf.NewBuilder([]btf.Type{
		page, folio, zone, node, section,
		enum("zone_stat_item", map[string]uint64{"NR_FREE_PAGES": 0}),
		enum("zone_type", map[string]uint64{"__MAX_NR_ZONES": 5}),
		enum("system_states", map[string]uint64{"SYSTEM_RUNNING": synRunning}),
		enum("pageflags", map[string]uint64{
			"PG_locked": 0, "PG_writeback": 1, "PG_uptodate": 3, "PG_dirty": 4, "PG_lru": 5,
			"PG_head":      6,
			"PG_swapcache": 10, "PG_reserved": 13, "PG_swapbacked": 17,
		}),
		enum("pagetype", map[string]uint64{
			"PGTY_buddy": 0xf0, "PGTY_offline": 0xf1, "PGTY_table": 0xf2, "PGTY_guard": 0xf3,
			"PGTY_hugetlb": 0xf4, "PGTY_slab": 0xf5,
		}),
	}, nil)
	var blob []byte
	if err == nil {
		blob, err = b.Marshal(nil, nil)
	}
	if err != nil && tb != nil {
		tb.Fatal(err)
	}
	return blob
}
