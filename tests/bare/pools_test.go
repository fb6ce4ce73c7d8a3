// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A VM whose memory is in several pools hands all of them over, and each stays or arrives as the
// destination has it.
func TestSeveralPools(t *testing.T) {
	for _, tc := range []struct {
		name    string
		arrives []bool
	}{
		{"both stay", []bool{false, false}},
		{"one stays, and one arrives", []bool{false, true}},
		{"one arrives, and one stays", []bool{true, false}},
		{"both arrive", []bool{true, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pools := []string{newPool(t), newPool(t)}
			m := start(t, onPools(pools, "first", []bool{false, false}))
			for _, pool := range pools {
				writeRandom(t, pool, 2<<20)
			}
			want := m.memory()
			dst := startIncoming(t, onPools(pools, "second", tc.arrives))
			m.migrate(dst, byHandover())
			dst.requireRuns()
			requireRefused(t, m.cont(), "does not have the lease")
			if tc.arrives[0] || tc.arrives[1] {
				dst.awaitLoaded()
			}
			dst.requireMemory(want)
			for i, pool := range pools {
				if empty := inUse(t, pool) <= 1<<20; empty != tc.arrives[i] {
					t.Errorf("pool %d has %d bytes", i, inUse(t, pool))
				}
			}
			requireRefused(t, m.cont(), "does not have the lease")
		})
	}
}

// onPools is a VM whose memory is in two pools, or arrives from them.
func onPools(pools []string, name string, arrives []bool) vm.Config {
	c := config("")
	c.Options = []string{"-name", name}
	c.Memory = nil
	for i, pool := range pools {
		kind := "memory-backend-file,share=on,lease=on,mem-path="
		if arrives[i] {
			kind = own + ",pool="
		}
		c.Memory = append(c.Memory, fmt.Sprintf("%s%s,id=ram%d,size=%dM", kind, pool, i, c.MemoryMiB/2))
		c.Options = append(c.Options, "-numa", fmt.Sprintf("node,nodeid=%d,memdev=ram%d", i, i))
	}
	return c
}

// writeRandom writes what no other run has to a pool, behind the first MiBs.
func writeRandom(t testing.TB, pool string, offset int64) {
	t.Helper()
	content := make([]byte, 8<<20)
	_, _ = rand.Read(content) // never fails
	f, err := os.OpenFile(pool, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, offset); err != nil {
		t.Fatal(err)
	}
}

// A pool may be of huge pages. The lease takes one of them.
func TestPoolOfHugePages(t *testing.T) {
	lab.ReserveHugePages(t, all>>21+1)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "hugetlbfs", 0, "pagesize=2M"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	pool := filepath.Join(dir, "pool")
	m := start(t, onPool(pool, "first", "on"))
	m.pattern() // such a file cannot be written by write(2)
	want := m.memory()
	stays := startIncoming(t, onPool(pool, "second", "on"))
	m.migrate(stays, byHandover())
	stays.requireRuns()
	requireRefused(t, m.cont(), "does not have the lease", "held by "+stays.identity())
	stays.requireMemory(want)

	arrives := startIncoming(t, localFrom(pool, "third", own))
	stays.migrate(arrives, byHandover())
	arrives.awaitLoaded()
	arrives.requireRuns()
	arrives.requireMemory(want)
	if left := bytes.Trim(memoryIn(t, pool), "\x00"); len(left) > 0 {
		t.Errorf("%d bytes of the pool are left", len(left))
	}
}

// What virtio-mem has not plugged is not there, and does not come to be there by arriving: not
// even where pages that are zero do, as those of huge pages.
func TestUnpluggedMemoryDoesNotArrive(t *testing.T) {
	lab.ReserveHugePages(t, all>>21)
	pools := []string{newPool(t), newPool(t)}
	with := func(c vm.Config, backend string) vm.Config {
		c.Options = append(c.Options, "-m", "64M,maxmem=1G", "-object", backend)
		c.Devices = []string{"virtio-mem-pci,memdev=more,requested-size=0"}
		return c
	}
	m := start(t, with(onPool(pools[0], "first", "on"), fmt.Sprintf(
		"memory-backend-file,id=more,size=64M,share=on,mem-path=%s,lease=on", pools[1],
	)))
	dst := startIncoming(t, with(localFrom(pools[0], "second", own), fmt.Sprintf(
		"memory-backend-memfd,id=more,size=64M,hugetlb=on,hugetlbsize=2M,pool=%s", pools[1],
	)))
	m.migrate(dst, byHandover())
	dst.awaitLoaded()
	dst.requireRuns()
	if got := dst.usage("HugetlbPages:"); got != 0 {
		t.Errorf("%d bytes are there of memory that is not plugged", got)
	}
}
