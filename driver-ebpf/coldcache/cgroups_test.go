// SPDX-License-Identifier: Apache-2.0

package coldcache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// tree makes a folder of groups with the files of the given ones.
func tree(t *testing.T, folders ...string) cgroups {
	t.Helper()
	c := cgroups{root: t.TempDir(), swapsFile: "/proc/swaps"}
	for _, folder := range folders {
		at := filepath.Join(c.root, folder)
		err := os.MkdirAll(at, 0o755)
		for name, text := range map[string]string{statFile: stat, reclaimFile: ""} {
			err = errors.Join(err, os.WriteFile(filepath.Join(at, name), []byte(text), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestGroupsAreFoundFromTheOutside(t *testing.T) {
	c := tree(t, "", "a", "a/b", "c")
	if err := os.MkdirAll(filepath.Join(c.root, "no-memory", "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	all, err := c.groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	within := make(map[string]int)
	for _, g := range all {
		name, err := filepath.Rel(c.root, g.folder)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
		within[name] = len(g.within)
		if around := filepath.Dir(name); name != "." && (g.around < 0 || names[g.around] != around) ||
			name == "." && g.around != -1 || g.figures.cold != 4*mib-4096 {
			t.Errorf("%s: %+v", name, g)
		}
	}
	if want := []string{".", "a", "a/b", "c"}; !slices.Equal(names, want) {
		t.Errorf("groups %v, want %v", names, want)
	}
	if within["."] != 2 || within["a"] != 1 || within["a/b"] != 0 {
		t.Errorf("groups within: %v", within)
	}
}

func TestOpenSaysWhyNothingCanBeDropped(t *testing.T) {
	if _, err := open(tree(t), t.TempDir()); !errors.Is(err, errNoCgroup) {
		t.Errorf("without control groups: %v", err)
	}
	c := tree(t, "")
	if d, err := open(c, c.root); err != nil || !d.spares {
		t.Errorf("with control groups: %v", err)
	}
	for _, swap := range []bool{false, true} {
		s := oneGroup(1, 0, 0)
		s.old, s.swap = true, swap
		if d, err := open(s, "a"); errors.Is(err, errSwap) != swap || (d == nil) != swap {
			t.Errorf("an old kernel with swap %v: %+v, %v", swap, d, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(c.root, reclaimFile)); err != nil ||
		string(text) != "0 swappiness=0" {
		t.Errorf("the kernel was asked for %q: %v", text, err)
	}
	if err := os.Remove(filepath.Join(c.root, reclaimFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(c, c.root); !errors.Is(err, errNoReclaim) {
		t.Errorf("with an old kernel: %v", err)
	}
}
