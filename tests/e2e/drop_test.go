// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
)

// Disks of a guest that drops cache, in the order of setup.
const (
	coldDisk = "/dev/vda" // is read once
	hotDisk  = "/dev/vdb" // is read again and again
	swapDisk = "/dev/vdc"
)

// Sizes in bytes. dropMax is less than there is cold cache, even if what is mapped of programs
// counts against it. It is also much more than the free memory of CPUs that a walk finds or does
// not find, some 20 MiB.
const (
	coldSize = 128 << 20
	hotSize  = 8 << 20
	dropMax  = 64 << 20
)

// With the policy drop the guest drops cold cache, as much as it is asked for, and keeps hot
// cache. Nothing is swapped out for it: Linux 6.12 can be told so, and 6.1 drops nothing when
// there is swap.
func TestColdCacheIsDroppedByPolicy(t *testing.T) {
	kernels := guest.AllSeries()
	if !*soak {
		kernels = kernels[:min(2, len(kernels))] // later ones drop as the second does
	}
	for _, series := range kernels {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, dropSetup(t, series))
			if err := m.vm.Cache(m.ctx, coldDisk, hotDisk); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				m.cached(hotDisk)
			}
			if series != guest.Linux6_1 {
				m.swapOn()
			}
			m.integrity("pause") // what is free then depends on the cache alone
			first := m.migrate()
			m.integrity("resume")
			requireHints(t, first, "ok")
			m.requireCached(coldSize-dropMax, coldSize-dropMax*3/4)
			m.requireSound()

			m.cached(coldDisk) // is read again
			if series == guest.Linux6_1 {
				m.swapOn()
			} else if _, err := m.backend.Control.SetCache(m.ctx, "send"); err != nil {
				t.Fatal(err)
			}
			m.integrity("pause")
			second := m.migrate()
			m.integrity("resume")
			requireHints(t, second, "ok")
			m.requireCached(coldSize, coldSize)
			// What is sent again and again, as the guest writes it, is not counted here: that
			// depends on how busy the host is.
			saved := (first.Hints.Skipped - second.Hints.Skipped) * memory.PageSize
			t.Logf("%d MiB more were skipped", saved>>20)
			if saved < dropMax/2 {
				t.Errorf("%d pages were skipped where cache was dropped, and %d where it was not",
					first.Hints.Skipped, second.Hints.Skipped)
			}
			for _, counter := range []string{"pswpout", "oom_kill"} {
				if n := m.vmstat(counter); n != 0 {
					t.Errorf("%s is %d", counter, n)
				}
			}
		})
	}
}

// dropSetup is a guest with the disks, whose fbppd asks it to drop cache.
func dropSetup(t *testing.T, series guest.Series) setup {
	t.Helper()
	s := setup{series: series, memoryMiB: 512, modules: []string{"virtio_blk"}, backendArgs: []string{
		"--cache=drop", "--cache-drop-max=" + strconv.Itoa(dropMax), "--cache-drop-time=10s",
	}}
	swap := make([]byte, 16<<20)
	copy(swap[memory.PageSize-10:], "SWAPSPACE2")
	swap[1024] = 1                             // its version
	swap[1028], swap[1029] = 0xff, len16(swap) // its last page
	for i, disk := range [][]byte{text(coldSize), text(hotSize), swap} {
		path := filepath.Join(t.TempDir(), "disk"+strconv.Itoa(i))
		if err := os.WriteFile(path, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		id := "d" + strconv.Itoa(i)
		// The disk is open at both ends of a migration.
		s.options = append(s.options, "-drive",
			"file="+path+",if=none,id="+id+",format=raw,file.locking=off")
		s.devices = append(s.devices, "virtio-blk-pci,drive="+id)
	}
	return s
}

// len16 is the upper byte of the number of the last page.
func len16(disk []byte) byte { return byte((len(disk)/memory.PageSize - 1) >> 8) }

// text returns bytes of which no page is zero.
func text(size int) []byte {
	p := make([]byte, size)
	for i := 0; i < size; i += 64 {
		p[i] = byte(1 + i/memory.PageSize%250)
	}
	return p
}

// cached returns what is cached of the disks, in bytes. read, unless empty, is read before.
func (m *machine) cached(read string) (cold, hot int64) {
	m.t.Helper()
	pages, err := m.vm.Cached(m.ctx, read)
	if err != nil {
		m.t.Fatal(err)
	}
	return pages[coldDisk] * memory.PageSize, pages[hotDisk] * memory.PageSize
}

// requireCached requires that so much of the cold disk is cached, and all of the hot one.
func (m *machine) requireCached(least, most int64) {
	m.t.Helper()
	if cold, hot := m.cached(""); hot != hotSize || cold < least || cold > most {
		m.t.Errorf("%d bytes of the hot disk are cached, want %d, and %d of the cold one, want %d to %d",
			hot, hotSize, cold, least, most)
	}
}

func (m *machine) swapOn() {
	m.t.Helper()
	if _, err := m.vm.Run(m.ctx, "/init", "swapon", swapDisk); err != nil {
		m.t.Fatal(err)
	}
}

// vmstat returns a counter of the guest's kernel.
func (m *machine) vmstat(name string) (n int64) {
	m.t.Helper()
	all, err := m.vm.Run(m.ctx, "/init", "show", "/proc/vmstat")
	if err != nil {
		m.t.Fatal(err)
	}
	_, line, ok := strings.Cut(all, "\n"+name+" ")
	if ok {
		value, _, _ := strings.Cut(line, "\n")
		n, err = strconv.ParseInt(value, 10, 64)
	}
	if !ok || err != nil {
		m.t.Fatalf("%s is not in vmstat: %v", name, err)
	}
	return n
}
