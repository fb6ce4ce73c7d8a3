// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLeaksAreFoundAndNamed(t *testing.T) {
	before := openFDs()
	fd, err := unix.MemfdCreate("left-behind", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	p, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(p) }()
	found := strings.Join(leaks(before), "\n")
	for _, want := range []string{"descriptor ", "mapping ", "/memfd:left-behind"} {
		if !strings.Contains(found, want) {
			t.Errorf("no %q in %q", want, found)
		}
	}
}
