// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/tests/guest"
)

// mustAgree compares what the host sees in the memory of a paused guest with
// what the guest said.
func mustAgree(t *testing.T, mem *physmem.Memory, files map[string][]byte) {
	t.Helper()
	k, err := introspect.Locate(t.Context(), mem, introspect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[uint64]pages.Page)
	census, err := k.Scan(t.Context(), introspect.ScanOptions{Each: func(pfn, n uint64, p pages.Page) {
		for i := range n {
			seen[pfn+i] = p
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, zone := range census.Zones {
		if !slices.Equal(zone.Blocks, zone.Free) {
			t.Errorf("node %d zone %s: blocks %v, the kernel counts %v", zone.Node, zone.Name, zone.Blocks, zone.Free)
		}
	}
	c := compare(files["kpageflags"], files["kpageflags2"], seen)
	t.Logf("%s: %d of %d pages differ in class, %d in anything\n%v", k.Release,
		c.differing(byClass), c.pages, c.differing(byAll), c)
}

func TestKept(t *testing.T) {
	dirs, _ := filepath.Glob(filepath.Join(*keep, "*"))
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			f, err := os.Open(filepath.Join(dir, "ram0"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			mem, err := physmem.New([]physmem.Region{{Size: uint64(info.Size()), Source: physmem.FD(f.Fd())}})
			if err != nil {
				t.Fatal(err)
			}
			files := make(map[string][]byte)
			for _, name := range []string{"kpageflags", "kpageflags2"} {
				if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			mustAgree(t, mem, files)
		})
	}
}

func TestAgree(t *testing.T) {
	for _, series := range []guest.Series{guest.Linux6_1, guest.Linux6_12, guest.Linux7_3} {
		t.Run(string(series), func(t *testing.T) {
			s := mustBoot(t, machine{series: series, nodes: []int{512}, kinds: allKinds})
			t.Log(s.release, s.loaded)
			files := s.mustPauseWithView(t)
			t.Logf("%s", files["buddyinfo"])
		})
	}
}
