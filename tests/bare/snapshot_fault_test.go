// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// A file that cannot be read while a machine's memory comes from it pauses the machine,
// and QEMU says what it could not read. Nothing takes the place of what is missing. When
// the file is there again, "cont" goes on where it was.
func TestFileFailsDuringAFastSnapshotLoad(t *testing.T) {
	const touched = 0x30000 // by the processor
	cut := func(t testing.TB, _ *disk, file string) {
		if err := os.Truncate(file, badFrom); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		accel vm.Accel
		fail  func(t testing.TB, d *disk, file string)
		says  string
		touch bool // else nobody needs a page, and they come by themselves
	}{
		{"it is truncated", "qtest", cut, "the file ends there", false},
		{"it is changed", "qtest", func(t testing.TB, _ *disk, file string) {
			if err := os.Chtimes(file, time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}, "was changed while RAM is loaded from it", false},
		{"its disk is bad", "qtest", func(_ testing.TB, d *disk, _ string) {
			d.bad.Store(true)
		}, "Input/output error", false},
		{"a processor needs a page", vm.TCG, cut, "the file ends there", true},
		{"a processor needs a page of a bad disk", vm.TCG, func(_ testing.TB, d *disk, _ string) {
			d.bad.Store(true)
		}, "Input/output error", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := config("")
			c.Accel, c.Firmware = tc.accel, writeROM(t)
			m := start(t, c)
			m.pattern()
			m.fill(touched, pageSize, 0x11)
			d := mountDisk(t)
			file := filepath.Join(d.dir, "snapshot")
			m.snapshot(file)
			s := keep(t, file)

			dst := startIncoming(t, c)
			dst.arriveSlowly(file)
			dst.number("readw %#x", order) // has arrived now
			tc.fail(t, d, file)
			if tc.touch {
				dst.do("writew %#x %#x", order, touched>>4)
			} else {
				dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
			}
			dst.requirePausedBy(file, tc.says)
			dst.execute("cont", nil) // the file is as it was
			dst.awaitSaid("load RAM: ", 2)
			dst.requirePausedBy(file, tc.says)

			d.bad.Store(false)
			s.restore(t)
			dst.execute("cont", nil)
			if tc.touch {
				dst.await("the processor goes on", func() bool {
					return dst.number("readw %#x", order) == 0
				})
				if got := dst.number("readl %#x", touched); got != 0x11111112 {
					t.Errorf("the processor has counted to %#x", got)
				}
				dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
			}
			dst.awaitLoaded()
			dst.requireRuns()
			if want := m.memory(); !bytes.Equal(want[filled:], dst.memory()[filled:]) {
				t.Error("memory is another than was written")
			}
		})
	}
}

// requirePausedBy waits until the machine is paused by an I/O error that names the file.
func (m *machine) requirePausedBy(file, says string) {
	m.t.Helper()
	m.await("the machine is paused", func() bool {
		status, err := m.Status(m.ctx)
		if err != nil {
			m.t.Fatalf("%v\n%s", err, m.Messages())
		}
		return status == "io-error"
	})
	figures, err := m.QueryMigrate(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if !strings.Contains(figures.ErrorDesc, says) || !strings.Contains(figures.ErrorDesc, file) ||
		figures.Load == nil || figures.Load.Remaining == 0 {
		m.t.Fatalf("the load is %+v, want an error with %q", figures, says)
	}
}

// kept is what a file was.
type kept struct {
	path    string
	content []byte
	time    time.Time
}

func keep(t testing.TB, path string) kept {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return kept{path, content, info.ModTime()}
}

// restore makes the file what it was. It stays the same file.
func (k kept) restore(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(k.path, k.content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(k.path, time.Time{}, k.time); err != nil {
		t.Fatal(err)
	}
}

// If the main loop itself needs what cannot be read, nobody could be told over the
// monitor. QEMU says why, and ends.
func TestMainLoopNeedsWhatCannotBeRead(t *testing.T) {
	_, dst, file := startSnapshot(t)
	dst.arriveSlowly(file)
	if err := os.Truncate(file, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := dst.Execute(dst.ctx, "pmemsave", map[string]any{
		"val": holes, "size": pageSize, "filename": file + "m",
	}, nil); err == nil {
		t.Error("memory was read that is not to be had")
	}
	if err := dst.Wait(dst.ctx); err == nil {
		t.Error("QEMU ended as if all was well")
	}
	if said := dst.Messages(); !strings.Contains(said, "QEMU waits for it: read 4096 bytes") ||
		!strings.Contains(said, file) {
		t.Errorf("QEMU said %q", said)
	}
}

// A file that cannot be loaded is refused before the guest runs.
func TestFastSnapshotLoadRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		file func(t testing.TB, file string)
		at   func(c *vm.Config)
		says string
	}{
		{"a truncated file", func(t testing.TB, file string) {
			if err := os.Truncate(file, 40<<20); err != nil {
				t.Fatal(err)
			}
		}, nil, "is truncated: RAM block ram"},
		{"a file without the state of the devices", func(t testing.TB, file string) {
			content := keep(t, file).content
			end := bytes.LastIndex(content, []byte(`"page_size"`)) // of the description
			if err := os.Truncate(file, int64(end-2048)); err != nil {
				t.Fatal(err)
			}
		}, nil, "load of migration failed"},
		{"a RAM block that the file does not have", nil, func(c *vm.Config) {
			c.Options = append(c.Options, "-m", "64M,slots=1,maxmem=1G",
				"-object", "memory-backend-ram,id=more,size=16M")
			c.Devices = append(c.Devices, "pc-dimm,id=dimm,memdev=more")
		}, "the file has no RAM block more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := config("")
			m := start(t, c)
			m.pattern()
			file := filepath.Join(t.TempDir(), "snapshot")
			m.snapshot(file)
			if tc.file != nil {
				tc.file(t, file)
			}
			if tc.at != nil {
				tc.at(&c)
			}
			dst := startIncoming(t, c)
			dst.load(file)
			dst.await("the load has failed", func() bool {
				figures, err := dst.QueryMigrate(dst.ctx)
				if err != nil {
					t.Fatalf("%v\n%s", err, dst.Messages())
				}
				if figures.Status == "failed" && !strings.Contains(figures.ErrorDesc, tc.says) {
					t.Fatalf("the error is %q, want %q", figures.ErrorDesc, tc.says)
				}
				return figures.Status == "failed"
			})
			if status, err := dst.Status(dst.ctx); err != nil || status != "inmigrate" {
				t.Errorf("QEMU is %q, %v: nothing may run", status, err)
			}
			dst.requireNothingLeft(file)
		})
	}
}

// What cannot go with a fast snapshot load is refused where it is asked for.
func TestFastSnapshotLoadCapabilities(t *testing.T) {
	m := start(t, config(""))
	set := func(m *machine, names ...string) error {
		var states []map[string]any
		for _, name := range names {
			states = append(states, map[string]any{"capability": name, "state": true})
		}
		return m.Execute(m.ctx, "migrate-set-capabilities", map[string]any{"capabilities": states}, nil)
	}
	onDisk := config("")
	path := filepath.Join(t.TempDir(), "ram")
	onDisk.Memory = []string{"memory-backend-file,id=ram,size=64M,share=on,mem-path=" + path}
	for _, tc := range []struct {
		name string
		m    *machine
		caps []string
		says string // a regular expression
	}{
		{"preempt", m, []string{"mapped-ram", "postcopy-ram", "postcopy-preempt"},
			"Mapped-ram migration is incompatible with postcopy-preempt"},
		{"multifd", m, []string{"mapped-ram", "postcopy-ram", "multifd"},
			"Postcopy is not yet compatible with multifd|" + // by QEMU 10.0 itself
				"Fast snapshot load is incompatible with multifd"},
		{"shared memory that stays", m, []string{"mapped-ram", "postcopy-ram", "x-ignore-shared"},
			"Postcopy is not compatible with ignore-shared"},
		{"memory in a file on disk", startIncoming(t, onDisk), []string{"mapped-ram", "postcopy-ram"},
			"Host backend files need to be TMPFS or HUGETLBFS only"},
	} {
		if err := set(tc.m, tc.caps...); err == nil ||
			!regexp.MustCompile(tc.says).MatchString(err.Error()) {
			t.Errorf("%s: QEMU says %v, want %q", tc.name, err, tc.says)
		}
	}
	if err := set(m, "mapped-ram", "postcopy-ram"); err != nil {
		t.Fatal(err)
	}
	err := m.Execute(m.ctx, "migrate", map[string]any{"uri": "file:" + path + "s"}, nil)
	if err == nil || !strings.Contains(err.Error(), "Cannot write a mapped-ram file") {
		t.Errorf("a file is written with postcopy-ram: %v", err)
	}
}
