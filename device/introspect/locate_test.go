// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"maps"
	"strings"
	"testing"

	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/introspect/layout"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

const synFew = 4 * syn.SectionPFN // pages of a small guest

// locate finds the kernel of a guest by its hint.
func locate(tb testing.TB, s *syn.Guest) *Kernel {
	tb.Helper()
	k, err := Locate(tb.Context(), s.Memory(tb), Options{Hint: syn.Note})
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestLocateWithAndWithoutAHint(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	for name, hint := range map[string]uint64{
		"right": syn.Note, "none": 0, "wrong": syn.Note + 4096, "no RAM": 1 << 50,
	} {
		k, err := Locate(t.Context(), s.Memory(t), Options{Hint: hint})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if k.Release != "6.12.0-synthetic" || k.NoteAddress() != syn.Note {
			t.Errorf("%s: %q at %#x", name, k.Release, k.NoteAddress())
		}
		if err := k.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// broken is memory that must not be read.
type broken struct{}

var errBroken = errors.New("memory was read that need not be read")

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

func TestTheKernelIsFoundByItsOwnPointers(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	more := physmem.Region{GPA: 1 << 45, Size: 1 << 40, Source: broken{}}
	mem, err := physmem.New(append(s.Memory(t).Regions(), more))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Locate(t.Context(), mem, Options{}); err != nil {
		t.Fatal(err)
	}
	// If the variable does not point to the note, all memory is searched.
	s.Put(syn.Variables, 0)
	if _, err := Locate(t.Context(), mem, Options{}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if _, err := Locate(t.Context(), mem, Options{Quick: true}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a quick look: %v", err)
	}
}

func TestEmptyMemoryHasNoKernel(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	clear(s.Low)
	if _, err := Locate(t.Context(), s.Memory(t), Options{}); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

// A program in the guest can write a note of its own. In some distributions it can
// also read the kernel's note and copy it.
func TestForgedNotesAreRejected(t *testing.T) {
	const forged = 4 << 20 // before the true one
	for name, forge := range map[string]func(s *syn.Guest, facts map[string]string){
		"a copy": func(*syn.Guest, map[string]string) {},
		"page tables of its own": func(s *syn.Guest, facts map[string]string) {
			facts["NUMBER(phys_base)"] = "-10485760"
			copy(s.Low[6<<20:], s.Image(syn.Root)[:0x6000])
			// A copy of the page tables maps the same, but is not the kernel's.
			for at := range 8 {
				s.Low[6<<20+0xff8+at] = 0
			}
			s.Low[6<<20+0xff8] = 1
		},
		"symbols of its own": func(s *syn.Guest, facts map[string]string) {
			facts["SYMBOL(kallsyms_names)"] = "ffff888000700000"
		},
		"another release": func(_ *syn.Guest, facts map[string]string) {
			facts["OSRELEASE"] = "6.13.0"
		},
		"an old release": func(_ *syn.Guest, facts map[string]string) {
			facts["OSRELEASE"] = "5.10.0"
		},
		"nothing in it": func(_ *syn.Guest, facts map[string]string) {
			clear(facts)
			facts["OSRELEASE"] = "6.12.0"
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := syn.New(t, synFew, synFew)
			facts := maps.Clone(s.Facts)
			forge(s, facts)
			syn.PutNote(s.Low[forged:], facts)
			k, err := Locate(t.Context(), s.Memory(t), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if k.NoteAddress() != syn.Note {
				t.Fatalf("the note at %#x was believed", k.NoteAddress())
			}
			// Without the true note no kernel may be found.
			clear(s.Low[syn.Note:][:8192])
			if k, err := Locate(t.Context(), s.Memory(t), Options{Hint: forged}); err == nil {
				t.Fatalf("the note at %#x was believed", k.NoteAddress())
			}
		})
	}
}

func TestKernelsThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(s *syn.Guest)
		want   error
	}{
		"before 6.0": {
			func(s *syn.Guest) { s.Facts["OSRELEASE"] = "5.10.0-32" }, layout.ErrUnknown,
		},
		"no version": {func(s *syn.Guest) { s.Facts["OSRELEASE"] = "FreeBSD" }, nil},
		"no kallsyms": {
			func(s *syn.Guest) { delete(s.Facts, "SYMBOL(kallsyms_names)") }, layout.ErrUnknown,
		},
		"no SPARSEMEM": {
			func(s *syn.Guest) { delete(s.Facts, "NUMBER(SECTION_SIZE_BITS)") }, layout.ErrUnknown,
		},
		"huge sections": {
			func(s *syn.Guest) { s.Facts["NUMBER(SECTION_SIZE_BITS)"] = "63" }, layout.ErrUnknown,
		},
		"pages of 64 KiB": {
			func(s *syn.Guest) { s.Facts["PAGESIZE"] = "65536" }, layout.ErrUnknown,
		},
		"another page size": {
			func(s *syn.Guest) { s.Facts["SIZE(page)"] = "56" }, layout.ErrUnknown,
		},
		"no BTF": {
			func(s *syn.Guest) { clear(s.Image(syn.BTF)[:24]) }, layout.ErrUnknown,
		},
		"ELF for BTF": {
			func(s *syn.Guest) { copy(s.Image(syn.BTF), "\x7fELF\x02\x01\x01") }, layout.ErrUnknown,
		},
		"no page tables": {func(s *syn.Guest) { clear(s.Image(syn.Root)[:4096]) }, ErrUnproven},
		"another trampoline": {
			func(s *syn.Guest) { s.Low[syn.Trampoline+lastEntry*8+1] ^= 0x10 }, ErrUnproven,
		},
		"another note": {
			func(s *syn.Guest) { s.Put(syn.Variables, syn.Direct+syn.Note+4096) }, ErrUnproven,
		},
		"no phys_base": {
			func(s *syn.Guest) { delete(s.Facts, "NUMBER(phys_base)") }, layout.ErrUnknown,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := syn.New(t, synFew, synFew)
			tc.damage(s)
			s.PutNote()
			_, err := Locate(t.Context(), s.Memory(t), Options{})
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			t.Log(err)
		})
	}
}

// A guest for arm64 has none of the x86 structures, but its kernel writes a note as well. Its
// struct pages are not to be guessed.
func TestAKernelForARM64IsRefusedByName(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	clear(s.Low)
	for _, name := range []string{"phys_base", "pgtable_l5_enabled"} {
		delete(s.Facts, "NUMBER("+name+")")
	}
	s.Facts["NUMBER(kimage_voffset)"] = "0xffff7fff80000000"
	s.Facts["NUMBER(VMEMMAP_START)"] = "0xfffffdffc0000000"
	s.Facts["NUMBER(PHYS_OFFSET)"] = "0x40000000"
	s.PutNote()
	_, err := Locate(t.Context(), s.Memory(t), Options{})
	if !errors.Is(err, layout.ErrUnknown) || !strings.Contains(err.Error(), "for arm64") {
		t.Fatalf("got %v", err)
	}
}

func TestAnotherBootIsNoticed(t *testing.T) {
	for name, change := range map[string]func(s *syn.Guest){
		"another trampoline": func(s *syn.Guest) { clear(s.Low[syn.Trampoline:][:4096]) },
		"another note":       func(s *syn.Guest) { s.Low[syn.Note+30]++ },
		"a note elsewhere": func(s *syn.Guest) {
			s.Put(syn.Variables, syn.Direct+syn.Note+8192)
		},
		"other page tables": func(s *syn.Guest) { clear(s.Image(syn.Root)[:4096]) },
	} {
		s := syn.New(t, synFew, synFew)
		k := locate(t, s)
		change(s)
		if err := k.Check(); !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAKernelThatEndsIsNoticed(t *testing.T) {
	for name, change := range map[string]func(s *syn.Guest){
		"it boots":             func(s *syn.Guest) { s.Put(syn.Variables+syn.State, 0) },
		"it restarts":          func(s *syn.Guest) { s.Put(syn.Variables+syn.State, syn.Running+3) },
		"it crashed":           func(s *syn.Guest) { s.Put(syn.Variables+syn.PanicCPU, 0) },
		"it has a kexec image": func(s *syn.Guest) { s.Put(syn.Variables+syn.Kexec, syn.Direct) },
	} {
		s := syn.New(t, synFew, synFew)
		k := locate(t, s)
		change(s)
		if err := k.Check(); !errors.Is(err, ErrEnding) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAKernelIsKeptWhenTheMemoryTableChanges(t *testing.T) {
	s := syn.New(t, synFew, synFew)
	k := locate(t, s)
	if err := k.In(s.Memory(t)).Check(); err != nil {
		t.Error(err)
	}
	empty := syn.New(t, synFew, synFew)
	clear(empty.Low)
	if err := k.In(empty.Memory(t)).Check(); !errors.Is(err, ErrUnproven) {
		t.Errorf("another guest's memory: %v", err)
	}
	if err := k.Check(); err != nil {
		t.Errorf("the kernel in the old memory: %v", err)
	}
}

func TestContent(t *testing.T) {
	for name, tc := range map[string]struct {
		variable int
		want     Content
	}{
		"nothing":         {0x200, Content{}},
		"init_on_free":    {32, Content{InitOnFree: true}},
		"init_on_alloc":   {40, Content{InitOnAlloc: true}},
		"page_poison":     {48, Content{PagePoison: true}},
		"debug_pagealloc": {56, Content{DebugPagealloc: true}},
	} {
		s := syn.New(t, synFew, synFew)
		s.Put(syn.Variables+tc.variable, 1)
		got, err := locate(t, s).Content()
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got.Matters() != (tc.want.PagePoison || tc.want.DebugPagealloc) {
			t.Errorf("%s: matters %v", name, got.Matters())
		}
	}
}
