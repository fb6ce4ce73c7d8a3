// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/kallsyms"
	"github.com/fbpp-project/fbpp/device/introspect/layout"
	"github.com/fbpp-project/fbpp/device/introspect/paging"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/device/introspect/vmcoreinfo"
)

// Errors of Locate, beside [layout.ErrUnknown].
var (
	// ErrNotFound says that memory holds no note of a kernel.
	ErrNotFound = errors.New("no kernel was found in the guest's memory")
	// ErrUnproven says that a note does not belong to the kernel that runs.
	ErrUnproven = errors.New("this is not the kernel that runs")
)

// maxCandidates bounds how many notes are tried.
const maxCandidates = 64

// Options of Locate.
type Options struct {
	// Hint is the guest-physical address where the note may be, such as from
	// QEMU's vmcoreinfo device. A wrong hint does no harm. 0 means none.
	Hint uint64
	// Quick skips the last step, which reads the beginning of every page. That
	// takes seconds, and mostly only finds the reason why there is no kernel.
	Quick bool
}

// Locate finds the kernel that runs in a guest. It tries the hint, then the
// kernel's own pointers, which takes some milliseconds. If both fail, it reads the
// beginning of every page, so that the error says why the kernel is refused. The
// error wraps ErrNotFound, ErrUnproven or layout.ErrUnknown, or the cause of ctx.
func Locate(ctx context.Context, mem *physmem.Memory, o Options) (*Kernel, error) {
	anchors, err := readAnchors(mem)
	if err != nil {
		return nil, fmt.Errorf("locate the kernel: %w", err)
	}
	l := &locator{mem: mem, anchors: anchors, refused: ErrNotFound}
	if o.Hint != 0 {
		if note, err := vmcoreinfo.ReadAt(mem, o.Hint); err == nil {
			l.try(note)
		}
	}
	if l.found == nil {
		anchors.eachNoteOfKernel(ctx, mem, l.try)
	}
	if l.found == nil && ctx.Err() == nil && !o.Quick {
		err = vmcoreinfo.Each(ctx, mem, func(n *vmcoreinfo.Note) bool {
			return l.try(n) && ctx.Err() == nil
		})
	}
	switch {
	case l.found != nil:
		return l.found, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("locate the kernel: %w", context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("locate the kernel: %w", err)
	}
	return nil, fmt.Errorf("locate the kernel: %w", l.refused)
}

// locator tries notes, one after the other.
type locator struct {
	mem     *physmem.Memory
	anchors *anchors
	tried   int
	found   *Kernel
	refused error // why the likeliest note was refused
}

// try opens the kernel of a note. It returns whether to try more notes.
func (l *locator) try(note *vmcoreinfo.Note) bool {
	l.tried++
	k, err := open(l.mem, l.anchors, note)
	if err == nil {
		l.found = k
		return false
	}
	if errors.Is(l.refused, ErrNotFound) || errors.Is(l.refused, ErrUnproven) {
		l.refused = err // the reason of a proven kernel is kept
	}
	return l.tried < maxCandidates
}

// Where x86-64 kernels map their image: __START_KERNEL_map, and the end of
// KERNEL_IMAGE_SIZE with KASLR (arch/x86/include/asm/page_64_types.h).
const (
	imageStart = 0xffffffff80000000
	imageEnd   = 0xffffffffc0000000
)

// image reads the kernel's image only. The kernel's page tables map other memory,
// too, and programs can write to some of that.
type image struct{ space *paging.Space }

func (i image) Read(p []byte, va uint64) error {
	if va < imageStart || va > imageEnd || uint64(len(p)) > imageEnd-va {
		return fmt.Errorf("read %#x: outside of the kernel image", va)
	}
	return i.space.Read(p, va)
}

// The symbols that are looked up in the kernel's symbol table.
const (
	symbolNote      = "vmcoreinfo_note"
	symbolBTF       = "__start_BTF"
	symbolBTFEnd    = "__stop_BTF"
	symbolVmemmap   = "vmemmap_base"
	symbolSections  = "mem_section"
	symbolNodes     = "node_data"
	symbolOneNode   = "contig_page_data"
	symbolJiffies   = "jiffies_64"
	symbolCommand   = "saved_command_line"
	symbolPoison    = "_page_poisoning_enabled"
	symbolDebug     = "_debug_pagealloc_enabled"
	symbolInitFree  = "init_on_free"
	symbolInitAlloc = "init_on_alloc"
	symbolState     = "system_state"
	symbolPanicCPU  = "panic_cpu"
	symbolKexec     = "kexec_image"
	symbolPerCPU    = "__per_cpu_offset"
	symbolCPUs      = "nr_cpu_ids"
)

// open proves that the kernel of a note runs, and learns what stays true for its
// boot.
func open(mem *physmem.Memory, anchors *anchors, note *vmcoreinfo.Note) (*Kernel, error) {
	k := &Kernel{Release: note.Info.Release, mem: mem, note: note}
	fail := func(what string, err error) (*Kernel, error) {
		return nil, fmt.Errorf("%s of Linux %.64q: %w", what, k.Release, err)
	}
	major, minor, err := note.Info.Version()
	if err != nil {
		return nil, err
	}
	if k.space, err = openSpace(mem, note.Info); err != nil {
		return fail("find the page tables", err)
	}
	if err := anchors.check(mem, k.space.Root()); err != nil {
		return fail("prove the page tables", err)
	}
	if major < 6 {
		// The note names the parts of kallsyms since 5fd8fea935a1.
		err := fmt.Errorf("its note names none before Linux 6.0: %w", layout.ErrUnknown)
		return fail("find the symbols", err)
	}
	table, err := kallsyms.Read(image{k.space}, note.Info, "_stext", "init_uts_ns")
	if err != nil {
		return fail("find the symbols", fmt.Errorf("%w: %w", err, layout.ErrUnknown))
	}
	k.symbols = table.Find(
		symbolNote, symbolBTF, symbolBTFEnd, symbolVmemmap, symbolSections, symbolNodes,
		symbolOneNode, symbolJiffies, symbolCommand, symbolPoison, symbolDebug, symbolInitFree,
		symbolInitAlloc, symbolState, symbolPanicCPU, symbolKexec,
		symbolPerCPU, symbolCPUs)
	if err := k.checkNote(); err != nil {
		return fail("prove the note", err)
	}
	blob, err := k.readBTF()
	if err != nil {
		return fail("read the types", err)
	}
	if k.layout, err = layout.Load(blob, major, minor); err != nil {
		return fail("read the types", err)
	}
	if err := k.checkSizes(); err != nil {
		return fail("read the types", err)
	}
	if err := k.openMemMap(); err != nil {
		return fail("find the memory map", err)
	}
	return k, nil
}

// openSpace finds the kernel's page tables: the note gives the virtual address of
// the top table, and by phys_base where the image lies in physical memory.
func openSpace(mem *physmem.Memory, info *vmcoreinfo.Info) (*paging.Space, error) {
	root, err := info.Symbol("swapper_pg_dir")
	if err != nil {
		return nil, err
	}
	if _, err := info.Number("kimage_voffset"); err == nil {
		// Only arm64 says where its image is mapped by this name.
		return nil, fmt.Errorf("it is for arm64, and only x86-64 is known: %w", layout.ErrUnknown)
	}
	base, err := info.Number("phys_base")
	if err != nil {
		return nil, fmt.Errorf("%w (not x86-64?): %w", err, layout.ErrUnknown)
	}
	levels := 4
	if five, err := info.Number("pgtable_l5_enabled"); err == nil && five == 1 {
		levels = 5
	}
	if root < imageStart || root >= imageEnd {
		return nil, fmt.Errorf("swapper_pg_dir is at %#x: %w", root, ErrUnproven)
	}
	return paging.NewSpace(mem, root-imageStart+base, levels)
}

// readBTF reads the kernel's BTF.
func (k *Kernel) readBTF() ([]byte, error) {
	start, err := k.symbols.Address(symbolBTF)
	if err != nil {
		return nil, fmt.Errorf("%w (no DEBUG_INFO_BTF?): %w", err, layout.ErrUnknown)
	}
	end, err := k.symbols.Address(symbolBTFEnd)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, layout.ErrUnknown)
	}
	if end <= start || end-start > layout.MaxBTF {
		return nil, fmt.Errorf("BTF from %#x to %#x: %w", start, end, layout.ErrUnknown)
	}
	blob := make([]byte, end-start)
	return blob, image{k.space}.Read(blob, start)
}

// checkSizes checks that BTF and the note agree on the sizes of structures.
func (k *Kernel) checkSizes() error {
	for name, size := range map[string]int{
		"page": k.layout.Page.Size, "zone": k.layout.Zone.Size, "pglist_data": k.layout.Node.Size,
		"mem_section": k.layout.Section.Size,
	} {
		said, err := k.note.Info.Size(name)
		if err != nil {
			return fmt.Errorf("%w: %w", err, layout.ErrUnknown)
		}
		if said != uint64(size) {
			return fmt.Errorf("struct %s has %d bytes by BTF and %d by VMCOREINFO: %w",
				name, size, said, layout.ErrUnknown)
		}
	}
	return nil
}
