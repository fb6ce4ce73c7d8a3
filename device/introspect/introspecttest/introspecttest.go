// SPDX-License-Identifier: Apache-2.0

// Package introspecttest makes guests for the tests of introspection: a small
// memory with just those structures of a Linux kernel that introspection reads.
package introspecttest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// Constants of Linux on x86-64: __START_KERNEL_map, and the entry of the top page
// table that the trampoline copies.
const (
	imageStart = 0xffffffff80000000
	lastEntry  = 511
	pageShift  = 12
	noCPU      = 1<<32 - 1

	sectionHasMap, sectionOnline = 1 << 1, 1 << 2
)

// Where the parts of a synthetic kernel are, in guest-physical memory.
const (
	Trampoline = 0x9000
	Note       = 8 << 20
	Image      = 16 << 20 // mapped at imageStart + Image
	MemMap     = 32 << 20

	// Offsets in the image. From MapL2 on there are several tables.
	Root, ImageL3, ImageL2          = 0, 0x1000, 0x2000
	DirectL3, MapL3, MapL2          = 0x3000, 0x4000, 0x5000
	Symbols                         = 0x100000
	BTF                             = 0x200000
	Variables, NodeTable, ZoneNames = 0x300000, 0x301000, 0x303000
	Node, Roots, Sections           = 0x304000, 0x310000, 0x320000
	Group                           = 0x3f0000   // a memory control group
	PerCPU                          = 0x3e0000   // the variables of CPU 0; then those of CPU 1
	State, PanicCPU, Kexec          = 64, 72, 80 // offsets in Variables
	ImageSize                       = 4 << 20

	Direct  = 0xffff888000000000 // virtual addresses
	Vmemmap = 0xffffea0000000000

	FirstPFN   = 1 << 20 // of the memory that has struct pages
	PageSize   = 64
	ZoneSize   = 512
	NodeSize   = 5*ZoneSize + 64
	Orders     = 11
	SectionPFN = 1 << 15
)

// Flags and types of a synthetic kernel, as of Linux 6.12.
const (
	Locked     = 1 << 0
	Writeback  = 1 << 1
	Uptodate   = 1 << 3
	Dirty      = 1 << 4
	LRU        = 1 << 5
	Head       = 1 << 6
	Active     = 1 << 8
	Workingset = 1 << 9
	SwapCache  = 1 << 10
	Reserved   = 1 << 13
	SwapBacked = 1 << 17

	Running = 3 // SYSTEM_RUNNING

	// CPUs is the number of CPUs. Each has CPULists lists of free pages of the zone.
	CPUs, CPULists     = 2, 14
	perCPU, pageset    = 0x1000, 0x100 // size of a CPU's variables, and an offset in them
	pagesetSize, lists = 16 + 16*CPULists, 16
	countOfCPUs        = 128 // in Variables
	offsetsOfCPUs      = 136

	Zone      = 2 // ZONE_NORMAL
	ZoneFlags = Zone << 51

	// Generation is the lowest of 3 bits: a page's generation plus 1, of four. Which
	// processor used the page last takes the bits up to the zone.
	Generation = 1 << 27

	// GroupAddress is the address of Group, for Page.Group. Newest are the numbers of
	// the newest generation of its list, and of that of pages without a group.
	GroupAddress             = imageStart + Image + Group
	GroupNewest, NodeNewest  = Group + 0x100 + 72, Node + 5*ZoneSize + 24
	groupNodes, groupPerNode = 16, 0x100

	NoType  = 0xffffffff
	Buddy   = 0xf0 << 24
	Offline = 0xf1 << 24
	Table   = 0xf2 << 24
	Hugetlb = 0xf4 << 24
	Slab    = 0xf5 << 24
)

// zeroes is memory that was never written.
type zeroes struct{}

func (zeroes) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// Guest is a guest with a synthetic kernel: 4 levels of page tables, one node with
// one zone, and struct pages that a test writes.
type Guest struct {
	Low   []byte            // guest-physical memory from 0 on
	Pages uint64            // number of pages with struct pages, from FirstPFN on
	Facts map[string]string // lines of the kernel's note, for PutNote

	mapped uint64 // number of struct pages in memory; they repeat
}

// New makes a guest of so many pages. Only mapped struct pages are in memory. The
// kernel's page tables map them again and again.
func New(tb testing.TB, pages, mapped uint64) *Guest {
	tb.Helper()
	s := &Guest{Low: make([]byte, MemMap+mapped*PageSize), Pages: pages, mapped: mapped}
	s.Facts = map[string]string{
		"OSRELEASE": "6.12.0-synthetic", "PAGESIZE": "4096", "SIZE(page)": "64",
		"SIZE(zone)": fmt.Sprint(ZoneSize), "SIZE(pglist_data)": fmt.Sprint(NodeSize),
		"SIZE(mem_section)": "16",
		"NUMBER(phys_base)": "0", "NUMBER(pgtable_l5_enabled)": "0",
		"NUMBER(SECTION_SIZE_BITS)": "27", "NUMBER(MAX_PHYSMEM_BITS)": "46",
		"LENGTH(node_data)": "1024",
	}
	s.putTables()
	s.putSymbols()
	copy(s.Image(BTF), mustBTF(tb))
	s.putNode()
	s.PutNote()
	s.Set(0, Page{})
	memMap := s.Low[MemMap:]
	for n := PageSize; n < len(memMap); n *= 2 {
		copy(memMap[n:], memMap[:n])
	}
	return s
}

// Image returns the kernel's image from an offset on.
func (s *Guest) Image(offset int) []byte { return s.Low[Image+offset:] }

// Put writes a word of the image.
func (s *Guest) Put(offset int, word uint64) {
	binary.LittleEndian.PutUint64(s.Image(offset), word)
}

// entry writes an entry of a page table in the image.
func (s *Guest) entry(table int, va uint64, level int, entry uint64) {
	s.Put(table+int(va>>(12+9*level)&511)*8, entry)
}

func (s *Guest) putTables() {
	const present, large = 1 | 1<<5, 1<<7 | 1
	s.entry(Root, imageStart, 3, Image+ImageL3|present)
	s.entry(ImageL3, imageStart, 2, Image+ImageL2|present)
	for at := uint64(0); at < ImageSize; at += 2 << 20 {
		s.entry(ImageL2, imageStart+Image+at, 1, Image+at|large)
	}
	s.entry(Root, Direct, 3, Image+DirectL3|present)
	s.entry(DirectL3, Direct, 2, large) // the first GiB
	first := uint64(Vmemmap + FirstPFN*PageSize)
	s.entry(Root, first, 3, Image+MapL3|present)
	const perTable, perEntry = 1 << 30, 2 << 20
	for at := uint64(0); at < s.Pages*PageSize; at += perEntry {
		table := MapL2 + int((first+at)>>30-first>>30)*0x1000
		s.entry(MapL3, first+at, 2, Image+uint64(table)|present)
		s.entry(table, first+at, 1, MemMap+at%(s.mapped*PageSize)|large)
	}
	// The trampoline has a copy of the upper half. It was made before the processor
	// set the flag accessed.
	copy(s.Low[Trampoline:], s.Image(Root)[:4096])
	binary.LittleEndian.PutUint64(s.Low[Trampoline+lastEntry*8:], Image+ImageL3|1)
}

// putSymbols writes kallsyms, with addresses relative to a base.
func (s *Guest) putSymbols() {
	const base = imageStart + Image
	at := func(offset int) uint64 { return base + uint64(offset) }
	symbols := map[string]uint64{
		"_stext": base, "init_uts_ns": at(Variables + 0x100),
		"vmcoreinfo_note": at(Variables), "vmemmap_base": at(Variables + 8),
		"mem_section": at(Variables + 16), "jiffies_64": at(Variables + 24),
		"init_on_free": at(Variables + 32), "init_on_alloc": at(Variables + 40),
		"_page_poisoning_enabled": at(Variables + 48), "_debug_pagealloc_enabled": at(Variables + 56),
		"system_state": at(Variables + State), "panic_cpu": at(Variables + PanicCPU),
		"kexec_image": at(Variables + Kexec), "node_data": at(NodeTable),
		"nr_cpu_ids": at(Variables + countOfCPUs), "__per_cpu_offset": at(Variables + offsetsOfCPUs),
		"__start_BTF": at(BTF), "__stop_BTF": at(BTF) + uint64(len(mustBTF(nil))),
	}
	for name, offset := range map[string]int{
		"kallsyms_num_syms": 0, "kallsyms_relative_base": 8, "kallsyms_token_index": 0x1000,
		"kallsyms_token_table": 0x2000, "kallsyms_offsets": 0x4000, "kallsyms_names": 0x8000,
	} {
		s.fact("SYMBOL("+name+")", at(Symbols+offset))
	}
	s.fact("SYMBOL(_stext)", base)
	s.fact("SYMBOL(init_uts_ns)", symbols["init_uts_ns"])
	s.fact("SYMBOL(swapper_pg_dir)", base)
	binary.LittleEndian.PutUint32(s.Image(Symbols), uint32(len(symbols)))
	s.Put(Symbols+8, base)
	for code := range 256 {
		binary.LittleEndian.PutUint16(s.Image(Symbols + 0x1000)[2*code:], uint16(2*code))
		s.Image(Symbols + 0x2000)[2*code] = byte(code)
	}
	names, i := s.Image(Symbols+0x8000), 0
	for name, address := range symbols {
		binary.LittleEndian.PutUint32(s.Image(Symbols + 0x4000)[4*i:], uint32(address-base))
		names[0] = byte(len(name) + 1)
		n := copy(names[1:], "D"+name)
		names, i = names[1+n:], i+1
	}
}

func (s *Guest) fact(key string, value uint64) { s.Facts[key] = fmt.Sprintf("%x", value) }

func (s *Guest) putNode() {
	const base = imageStart + Image
	s.Put(Variables, Direct+Note)
	s.Put(Variables+8, Vmemmap)
	s.Put(Variables+16, base+Roots)
	s.Put(Variables+State, Running)
	s.Put(Variables+PanicCPU, noCPU)
	s.Put(NodeTable, base+Node)
	s.Put(Group+groupNodes, GroupAddress+groupPerNode)
	first := FirstPFN / SectionPFN
	for n := first; uint64(n)*SectionPFN < FirstPFN+s.Pages; n++ {
		const perRoot = 256
		root := Sections + n/perRoot*4096
		s.Put(Roots+n/perRoot*8, base+uint64(root))
		s.Put(root+n%perRoot*16, Vmemmap|sectionHasMap|sectionOnline|1)
	}
	zone := Node + Zone*ZoneSize
	copy(s.Image(ZoneNames), "Normal\x00")
	for offset, word := range map[int]uint64{
		0: base + ZoneNames, 8: FirstPFN, 16: s.Pages, 24: s.Pages, 32: s.Pages,
	} {
		s.Put(zone+offset, word)
	}
	s.Put(Variables+countOfCPUs, CPUs)
	s.Put(zone+432, pageset)
	for cpu := range CPUs {
		s.Put(Variables+offsetsOfCPUs+8*cpu, base+uint64(PerCPU+cpu*perCPU))
		for list := range CPULists {
			s.PutCPUList(cpu, list)
		}
		s.PutCPUCount(cpu, 0)
	}
}

// PutCPUList makes these pages a CPU's list of free pages. It writes their links, and not how
// many pages the CPU has.
func (s *Guest) PutCPUList(cpu, list int, pages ...uint64) {
	const base, link = imageStart + Image, 8
	offset := PerCPU + cpu*perCPU + pageset + lists + 16*list
	head := base + uint64(offset)
	next, before := s.Image(offset), head
	for _, n := range pages {
		at := Vmemmap + (FirstPFN+n)*PageSize + link
		binary.LittleEndian.PutUint64(next, at)
		next = s.Low[MemMap+n*PageSize+link:]
		binary.LittleEndian.PutUint64(next[8:], before)
		before = at
	}
	binary.LittleEndian.PutUint64(next, head)
	s.Put(offset+8, before)
}

// PutCPUCount writes how many pages a CPU has on its lists.
func (s *Guest) PutCPUCount(cpu int, pages uint32) {
	binary.LittleEndian.PutUint32(s.Image(PerCPU+cpu*perCPU+pageset), pages)
}

// PutNote writes the kernel's note with Facts.
func (s *Guest) PutNote() { PutNote(s.Low[Note:], s.Facts) }

// PutNote writes a note at the beginning of at, which has at least 8192 bytes.
func PutNote(at []byte, facts map[string]string) {
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

// Page is the content of a struct page.
type Page struct {
	Flags, Head, Mapping, Private uint64
	Group                         uint64 // its memory control group
	Word                          uint32 // type or mapcount; 0: neither
	Refcount                      uint32
	Large                         uint64 // after a head: flags with the order
}

// Set writes the struct page of the n-th page.
func (s *Guest) Set(n uint64, p Page) {
	b := s.Low[MemMap+n*PageSize:][:PageSize]
	clear(b)
	if p.Word == 0 {
		p.Word = NoType
	}
	binary.LittleEndian.PutUint64(b, p.Flags|p.Large|ZoneFlags)
	binary.LittleEndian.PutUint64(b[8:], p.Head)
	binary.LittleEndian.PutUint64(b[24:], p.Mapping)
	binary.LittleEndian.PutUint64(b[40:], p.Private)
	binary.LittleEndian.PutUint32(b[48:], p.Word)
	binary.LittleEndian.PutUint32(b[52:], p.Refcount)
	binary.LittleEndian.PutUint64(b[56:], p.Group)
	if p.Large != 0 { // mapcounts of -1: not mapped
		binary.LittleEndian.PutUint64(b[16:], 1<<64-1)
	}
}

// SetAll writes all struct pages in memory.
func (s *Guest) SetAll(f func(n uint64) Page) {
	for n := range s.mapped {
		s.Set(n, f(n))
	}
}

// SetLarge writes the struct pages of a compound page.
func (s *Guest) SetLarge(n uint64, order int, head Page) {
	head.Flags |= Head
	s.Set(n, head)
	for i := uint64(1); i < 1<<order && n+i < s.mapped; i++ {
		tail := Page{Head: Vmemmap + (FirstPFN+n)*PageSize | 1}
		if i == 1 {
			tail.Large = uint64(order)
		}
		s.Set(n+i, tail)
	}
}

// Memory returns the guest's memory: Low, and the pages with struct pages.
func (s *Guest) Memory(tb testing.TB) *physmem.Memory {
	return s.MemoryIn(tb, bytes.NewReader(s.Low))
}

// Share copies Low into a memfd, which a test can change while it is read. It
// returns the guest's memory, and a function that writes a word of the memfd.
func (s *Guest) Share(tb testing.TB) (*physmem.Memory, func(gpa int64, word uint64)) {
	tb.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.Pwrite(fd, s.Low, 0); err != nil {
		tb.Fatal(err)
	}
	return s.MemoryIn(tb, physmem.FD(fd)), func(gpa int64, word uint64) {
		if _, err := unix.Pwrite(fd, binary.LittleEndian.AppendUint64(nil, word), gpa); err != nil {
			tb.Error(err)
		}
	}
}

// MemoryIn is Memory with low in place of Low.
func (s *Guest) MemoryIn(tb testing.TB, low physmem.Source) *physmem.Memory {
	tb.Helper()
	m, err := physmem.New([]physmem.Region{
		{Size: uint64(len(s.Low)), Source: low},
		{GPA: FirstPFN << pageShift, Size: s.Pages << pageShift, Source: zeroes{}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}
