// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"
)

// physical returns the physical address of a mapping's first byte, by /proc/self/pagemap
// (Documentation/admin-guide/mm/pagemap.rst). It takes CAP_SYS_ADMIN, and memory that is there.
func physical(mem []byte) (uint64, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	base := uint64(os.Getpagesize())
	var entry [8]byte
	page := uint64(uintptr(unsafe.Pointer(&mem[0]))) / base
	if _, err := f.ReadAt(entry[:], int64(page*8)); err != nil {
		return 0, err
	}
	const present, frame = 1 << 63, 1<<55 - 1
	e := binary.LittleEndian.Uint64(entry[:])
	if e&present == 0 || e&frame == 0 {
		return 0, fmt.Errorf("find a page's address: its entry is %#x", e)
	}
	return e & frame * base, nil
}
