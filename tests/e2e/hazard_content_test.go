// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A guest whose kernel checks the content of its free pages is never asked:
// at the destination they would be zero. Debian's kernels are built without these
// checks. So this test sets their parameters on the kernel's command line, which is
// enough for the agent to refuse. The tests of package preflight show that the
// agent also finds the checks of a kernel that has them.
func TestGuestThatChecksFreePagesRefuses(t *testing.T) {
	for _, tc := range []struct {
		series guest.Series
		line   string
	}{
		{guest.Linux6_1, "page_poison=1"},
		{guest.Linux6_12, "debug_pagealloc=on"},
	} {
		t.Run(tc.line, func(t *testing.T) {
			m := boot(t, setup{series: tc.series, noAgent: true, kernelLine: []string{tc.line}})
			if err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the agent tells the next host as well
				state, err := m.backend.AwaitDriver(m.ctx)
				if err != nil || state != "refuses" {
					t.Fatalf("the driver is %q, %v", state, err)
				}
				status, err := m.backend.Control.Status(m.ctx)
				if err != nil || !strings.Contains(status.Driver.Reason, "page_poison or debug_pagealloc") {
					t.Fatalf("it refuses because of %q, %v", status.Driver.Reason, err)
				}
				requireHints(t, m.migrate(), "refused")
				m.requireSound()
			}
		})
	}
}

// zeroedMiB is how much new memory the guest allocates to see that it is zero, in
// MiB.
const zeroedMiB = 80

// A kernel that zeroes pages when they are freed does not zero them again when it
// allocates them. So the pages that hints skip must be zero on the destination. New
// memory is zero there. If the destination's memory is a file with old content, QEMU
// zeroes it first.
func TestGuestThatZeroesFreePages(t *testing.T) {
	eachKernel(t, func(t *testing.T, s setup) {
		s.kernelLine = []string{"init_on_free=1"}
		m := boot(t, s)
		if _, err := m.vm.Fill(m.ctx, 160); err != nil {
			t.Fatal(err)
		}
		for _, destination := range []func() (*vm.VM, *vm.Backend){
			m.destination, m.usedDestination, m.destination,
		} {
			requireHints(t, m.migrateTo(destination()), "ok")
			m.requireZeroes()
			m.requireSound()
			m.awaitDriver()
		}
	})
}

// requireZeroes has the guest allocate new memory, which has to be zero.
func (m *machine) requireZeroes() {
	m.t.Helper()
	m.requireNewZeroes(m.vm)
}

// requireNewZeroes is requireZeroes for a guest that runs in at already, while
// postcopy still moves its memory.
func (m *machine) requireNewZeroes(at *vm.VM) {
	m.t.Helper()
	z, err := at.Zeroes(m.ctx, zeroedMiB)
	if err != nil {
		m.t.Fatal(err)
	}
	if z.Wrong != 0 || z.Pages != zeroedMiB<<8 {
		m.t.Fatalf("of %d new pages %d are not zero: %v", z.Pages, z.Wrong, z.First)
	}
}

// migrateTo moves the guest to a destination that has been started.
func (m *machine) migrateTo(dst *vm.VM, backend *vm.Backend) *vm.Migration {
	m.t.Helper()
	if err := m.vm.StartMigration(m.ctx, dst, 0); err != nil {
		m.t.Fatal(err)
	}
	return m.arrive(dst, backend)
}

// usedDestination starts a destination whose memory is a file that another
// guest has written from end to end.
func (m *machine) usedDestination() (*vm.VM, *vm.Backend) {
	m.t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fbpp-ram-")
	if err != nil {
		m.t.Fatal(err)
	}
	m.closers = append(m.closers, func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "ram")
	if err := writePattern(path, m.config.MemoryMiB); err != nil {
		m.t.Fatal(err)
	}
	return m.start(vm.StartIncoming, func(c *vm.Config) {
		c.Memory = []string{fmt.Sprintf(
			"memory-backend-file,id=ram,size=%dM,share=on,mem-path=%s", c.MemoryMiB, path)}
	})
}

// writePattern fills a new file with bytes that are not zero.
func writePattern(path string, mib int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := bytes.Repeat([]byte{0xa5}, 1<<20)
	for range mib {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return nil
}
