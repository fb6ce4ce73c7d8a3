// SPDX-License-Identifier: Apache-2.0

//go:build guest

package localise

import (
	"fmt"
	"maps"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
)

// residence counts a file's pages by the node that they are on.
func residence(t *testing.T, m VM) map[int32]int {
	t.Helper()
	p, err := open(m.PID, m.Memory.Regions[0])
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.find(p.bytes); err != nil {
		t.Fatal(err)
	}
	if err := p.ask(p.pages); err != nil {
		t.Fatal(err)
	}
	count := make(map[int32]int)
	for _, node := range p.status {
		count[node]++
	}
	return count
}

func twoNodes(t *testing.T) (first, second int) {
	t.Helper()
	nodes := nodesWithMemory(t)
	if len(nodes) < 2 {
		t.Fatalf("this machine has memory on the nodes %v, and the test needs two", nodes)
	}
	return nodes[0], nodes[1]
}

// Memory moves to the other node and back, while somebody else has it mapped and writes to it. What
// is in no range stays, and what is touched later comes from the new node.
func TestMemoryMovesBetweenNodes(t *testing.T) {
	first, second := twoNodes(t)
	const (
		pages = 4096
		hot   = 100
		free  = 50
	)
	f, m := newMemory(t, 2*pages<<12)
	vm, err := unix.Mmap(int(f.Fd()), 0, 2*pages<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(vm)
	m.Ranges = []placement.Ranges{
		{Class: placement.Hot, Ranges: []freeset.Range{{GPA: 1000 << 12, Length: hot << 12}}},
		{Class: placement.Other, Ranges: []freeset.Range{
			{GPA: free << 12, Length: (1000 - free) << 12},
			{GPA: 1100 << 12, Length: (2*pages - 1100) << 12},
		}},
	}
	// All of it is on the first node in the beginning.
	if _, err := Run(t.Context(), VM{m.PID, m.Memory, nil}, Options{Node: first}); err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		vm[i<<12] = byte(i)
	}
	if on := residence(t, m); on[int32(first)] != pages {
		t.Fatalf("pages by node at first: %v", on)
	}
	written := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(written)
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				vm[1000<<12+1] = i
			}
		}
	}()
	r, err := Run(t.Context(), m, Options{Node: second})
	if err != nil {
		t.Fatal(err)
	}
	if r.Classes[placement.Hot] != (Counts{Moved: hot << 12}) || r.Total().Moved != (pages-free)<<12 {
		t.Errorf("moved there: %+v", r)
	}
	if on := residence(t, m); on[int32(second)] != pages-free || on[int32(first)] != free {
		t.Errorf("pages by node after the move: %v", on)
	}
	vm[pages<<12] = 1
	if on := residence(t, m); on[int32(second)] != pages-free+1 {
		t.Errorf("a page that is touched later is not on node %d: %v", second, on)
	}
	if r, err = Run(t.Context(), m, Options{Node: first}); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-written
	if c := r.Total(); c != (Counts{Moved: (pages - free + 1) << 12}) {
		t.Errorf("moved back: %+v", c)
	}
	for i := range pages {
		if vm[i<<12] != byte(i) {
			t.Fatalf("page %d has changed", i)
		}
	}
}

// Huge pages move as a whole, and holes stay holes.
func TestHugePagesMoveBetweenNodes(t *testing.T) {
	const (
		huge  = 2 << 20
		pages = 6 // and a hole after each
	)
	first, second := twoNodes(t)
	reserve := func(node, n int) {
		t.Helper()
		path := fmt.Sprintf("/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/", node)
		if err := os.WriteFile(path+"nr_hugepages", fmt.Append(nil, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reserve(first, pages)
	reserve(second, pages)
	defer reserve(first, 0)
	defer reserve(second, 0)
	fd, err := unix.MemfdCreate("huge", unix.MFD_CLOEXEC|unix.MFD_HUGETLB)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "huge")
	defer f.Close()
	if err := f.Truncate(2 * pages * huge); err != nil {
		t.Fatal(err)
	}
	vm, err := unix.Mmap(fd, 0, 2*pages*huge, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(vm)
	if err := mbind(vm, unix.MPOL_BIND, first); err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		vm[2*i*huge] = byte(i + 1)
	}
	m := memoryOf(t, f, 2*pages*huge)
	m.Ranges = []placement.Ranges{
		{Class: placement.Hot, Ranges: []freeset.Range{{GPA: 4*huge + 4096, Length: 4096}}},
		{Class: placement.Other, Ranges: []freeset.Range{{Length: 2 * pages * huge}}},
	}
	// The page of the hot range is there when all are moved.
	want := map[placement.Class]Counts{
		placement.Hot: {Moved: huge}, placement.Other: {Moved: (pages - 1) * huge, There: huge},
	}
	for _, node := range []int{second, first} {
		r, err := Run(t.Context(), m, Options{Node: node})
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(r.Classes, want) {
			t.Errorf("moved to node %d: %+v", node, r)
		}
		if on := residence(t, m); len(on) != 1 || on[int32(node)] != pages {
			t.Errorf("huge pages by node: %v", on)
		}
	}
	for i := range pages {
		if vm[2*i*huge] != byte(i+1) {
			t.Fatalf("huge page %d has changed", i)
		}
	}
}
