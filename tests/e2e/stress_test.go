// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
)

// stressName is the name under which the guest's init runs stress-ng.
const stressName = "stress"

// stressors is a command line of stress-ng. Its stressors allocate, write, verify and
// free memory of several kinds, and fail if the memory has changed.
func stressors(seconds int) []string {
	return []string{
		"/bin/stress-ng", "--verify", "--timeout", fmt.Sprint(seconds),
		"--temp-path", "/tmp", "--metrics-brief",
		"--vm", "1", "--vm-bytes", "48M", "--vm-method", "all",
		"--vm-hang", "0", "--vm-keep",
		"--mmap", "1", "--mmap-bytes", "32M", "--mmap-file",
		"--malloc", "1", "--malloc-bytes", "24M",
		"--fork", "1", "--pipe", "1",
		"--memfd", "1", "--memfd-bytes", "16M",
	}
}

// Programs that are not of this project find their memory intact after migrations
// with hints.
func TestStressNGVerifiesThroughMigrations(t *testing.T) {
	n := rounds(4, 200)
	eachKernel(t, func(t *testing.T, s setup) {
		progress := func(line string) { fmt.Fprintln(os.Stderr, "e2e:", line) }
		packages, err := guest.FetchPackages(t.Context(), s.series, progress, "stress-ng")
		if err != nil {
			t.Fatal(err)
		}
		programs, err := packages.Programs("stress-ng")
		if err != nil {
			t.Fatal(err)
		}
		s.memoryMiB, s.noIntegrity = 448, true
		s.timeout = hangTimeout + time.Duration(n)*time.Minute
		s.files = make(map[string]string)
		for path, source := range programs {
			s.files["/"+path] = source
		}
		m := boot(t, s)
		if _, err := m.vm.Fill(m.ctx, 192); err != nil {
			t.Fatal(err)
		}
		// requireStressed ends it after the migrations.
		if err := m.vm.Spawn(m.ctx, stressName, stressors(24*3600)...); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			m.awaitDriver()
			requireHints(t, m.migrate(), "ok")
			if i%25 == 24 {
				t.Logf("%d of %d migrations", i+1, n)
			}
		}
		m.requireStressed()
	})
}

// requireStressed ends stress-ng, and requires that it found nothing wrong.
func (m *machine) requireStressed() {
	m.t.Helper()
	const interrupt = 2 // SIGINT has stress-ng report as at the end of its time
	order := ctl.Request{Op: ctl.OpSignal, Name: stressName, Signal: interrupt}
	if _, err := m.vm.Guest.Do(m.ctx, order); err != nil {
		m.t.Fatal(err)
	}
	r, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpWait, Name: stressName})
	if err != nil {
		m.t.Fatal(err)
	}
	if r.Exit != 0 || !strings.Contains(r.Output, "successful run completed") {
		m.t.Fatalf("stress-ng ended with status %d:\n%s", r.Exit, r.Output)
	}
	m.t.Logf("stress-ng:\n%s", r.Output)
}
