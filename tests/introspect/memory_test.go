// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// mustMemory opens the guest's memory, with more regions that were plugged in.
func (s *subject) mustMemory(t *testing.T, more ...physmem.Region) *physmem.Memory {
	t.Helper()
	regions, err := s.ram.Regions(uint64(s.vm.Config.MemoryMiB) << 20)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := physmem.New(append(regions, more...))
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// blocks returns how much of the files is allocated.
func (s *subject) blocks(t *testing.T) (n int64) {
	t.Helper()
	for _, f := range s.ram {
		var stat unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
			t.Fatal(err)
		}
		n += stat.Blocks
	}
	return n
}
