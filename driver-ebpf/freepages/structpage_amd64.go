// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"fmt"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// firstStructPage returns the address of the kernel's array of struct pages. With
// SPARSEMEM_VMEMMAP there is one virtual array, at an address that KASLR chooses
// (arch/x86/mm/kaslr.c).
func firstStructPage(peek *kernel.Peek) (uint64, error) {
	base, err := readPointer(peek, "vmemmap_base")
	if err != nil {
		return 0, fmt.Errorf("find the struct pages (SPARSEMEM_VMEMMAP?): %w", err)
	}
	return base, nil
}
