// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strconv"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// structPageSize is the size of struct page in every kernel that is supported. The kernel
// itself chooses the address of the struct pages for it, rounded up to a power of two.
const structPageSize = 64

// firstStructPage returns the address that the struct page of physical address 0 would have.
// The kernel calls it vmemmap (arch/arm64/include/asm/pgtable.h): where its virtual array
// begins, less the pages below the first one that is mapped. The array's place depends on the
// version and the page size. So the kernel is asked: it tells tools that read crash dumps.
func firstStructPage(peek *kernel.Peek) (uint64, error) {
	info, err := readVMCoreInfo(peek)
	if err != nil {
		return 0, fmt.Errorf("find the struct pages: %w", err)
	}
	return vmemmap(info, bits.TrailingZeros(uint(os.Getpagesize())))
}

// vmemmap computes the kernel's vmemmap from its vmcoreinfo.
func vmemmap(info []byte, pageShift int) (uint64, error) {
	start, err1 := vmcoreNumber(info, "VMEMMAP_START")
	// With KASLR the first mapped address may lie below 0.
	mapped, err2 := vmcoreNumber(info, "PHYS_OFFSET")
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("find the struct pages (SPARSEMEM_VMEMMAP?): %w", err)
	}
	size, ok := vmcoreField(info, "SIZE(page)")
	if !ok || size != strconv.Itoa(structPageSize) {
		return 0, fmt.Errorf("find the struct pages: their size is %q, not %d", size, structPageSize)
	}
	return start - uint64(int64(mapped)>>pageShift)*structPageSize, nil
}

// vmcoreNumber returns a NUMBER(name) that the kernel wrote in hexadecimal.
func vmcoreNumber(info []byte, name string) (uint64, error) {
	text, ok := vmcoreField(info, "NUMBER("+name+")")
	if !ok {
		return 0, fmt.Errorf("the kernel's vmcoreinfo has no %s", name)
	}
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("parse %s of the kernel's vmcoreinfo: %w", name, err)
	}
	return n, nil
}

// vmcoreField returns the value of the line "key=value".
func vmcoreField(info []byte, key string) (string, bool) {
	for line := range bytes.Lines(info) {
		if value, ok := bytes.CutPrefix(line, []byte(key+"=")); ok {
			return string(bytes.TrimSpace(value)), true
		}
	}
	return "", false
}

// vmcoreInfoMax bounds the text. The kernel gives it one page.
const vmcoreInfoMax = 64 << 10

// readVMCoreInfo reads what the kernel says of itself to tools that read crash dumps
// (kernel/vmcore_info.c).
func readVMCoreInfo(peek *kernel.Peek) ([]byte, error) {
	data, err1 := readPointer(peek, "vmcoreinfo_data")
	size, err2 := readPointer(peek, "vmcoreinfo_size")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if size > vmcoreInfoMax {
		return nil, fmt.Errorf("read vmcoreinfo: %d bytes are more than it can have", size)
	}
	const chunk = 1024
	info := make([]byte, size)
	for off := uint64(0); off < size; off += chunk {
		if err := peek.Read(data+off, info[off:min(off+chunk, size)]); err != nil {
			return nil, fmt.Errorf("read vmcoreinfo: %w", err)
		}
	}
	return info, nil
}
