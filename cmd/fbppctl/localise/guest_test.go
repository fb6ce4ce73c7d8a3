// SPDX-License-Identifier: Apache-2.0

//go:build guest

package localise

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
)

// residence counts a file's pages by the node that they are on.
func residence(t *testing.T, f *os.File, m *placement.Memory) map[int32]int {
	t.Helper()
	p, err := open(os.Getpid(), m.Regions[0])
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.find(p.bytes); err != nil {
		t.Fatal(err)
	}
	if err := p.ask(); err != nil {
		t.Fatal(err)
	}
	count := make(map[int32]int)
	for _, node := range p.status {
		count[node]++
	}
	return count
}

// Memory moves to the other node and back, while somebody else has it mapped and writes to it. What
// is in no range stays, and what is touched later comes from the new node.
func TestMemoryMovesBetweenNodes(t *testing.T) {
	nodes := nodesWithMemory(t)
	if len(nodes) < 2 {
		t.Fatalf("this machine has memory on the nodes %v, and the test needs two", nodes)
	}
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
	all := []placement.Ranges{
		{Class: placement.Hot, Ranges: []freeset.Range{{GPA: 1000 << 12, Length: hot << 12}}},
		{Class: placement.Other, Ranges: []freeset.Range{
			{GPA: free << 12, Length: (1000 - free) << 12},
			{GPA: 1100 << 12, Length: (2*pages - 1100) << 12},
		}},
	}
	first, second := nodes[0], nodes[1]
	// All of it is on the first node in the beginning.
	if _, err := Run(t.Context(), m, nil, Options{Node: first}); err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		vm[i<<12] = byte(i)
	}
	if on := residence(t, f, m); on[int32(first)] != pages {
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
	r, err := Run(t.Context(), m, all, Options{Node: second})
	if err != nil {
		t.Fatal(err)
	}
	if r.Classes[placement.Hot] != (Counts{Moved: hot << 12}) || r.Total().Moved != (pages-free)<<12 {
		t.Errorf("moved there: %+v", r)
	}
	if on := residence(t, f, m); on[int32(second)] != pages-free || on[int32(first)] != free {
		t.Errorf("pages by node after the move: %v", on)
	}
	vm[pages<<12] = 1
	if on := residence(t, f, m); on[int32(second)] != pages-free+1 {
		t.Errorf("a page that is touched later is not on node %d: %v", second, on)
	}
	if r, err = Run(t.Context(), m, all, Options{Node: first}); err != nil {
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
