// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEachCPUIsVisitedByAThreadThatStaysThere(t *testing.T) {
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	var visited []int
	newVisitor(time.Hour).run(func(cpu int) {
		var bound unix.CPUSet
		err := unix.SchedGetaffinity(0, &bound)
		if err != nil || bound.Count() != 1 || !bound.IsSet(cpu) {
			t.Errorf("the thread on CPU %d may run on %d CPUs, %v", cpu, bound.Count(), err)
		}
		visited = append(visited, cpu)
	})
	if len(visited) != before.Count() || !slices.ContainsFunc(visited, before.IsSet) {
		t.Errorf("visited %v, may visit %d CPUs", visited, before.Count())
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("the caller may run on %d CPUs, %v", after.Count(), err)
	}
}

func TestNoVisitAfterTheLimit(t *testing.T) {
	v := newVisitor(20 * time.Millisecond)
	var visits int
	v.run(func(int) {
		visits++
		time.Sleep(time.Second) // past the limit
	})
	first := visits
	v.turn <- struct{}{} // when the thread has ended
	if first > 1 || visits != first {
		t.Errorf("%d visits when the limit was over, %d later; want one at most", first, visits)
	}
	v.run(func(int) { t.Error("visited while another thread is on its way") })
}

func TestIsolatedCPUsAreNotVisited(t *testing.T) {
	list := filepath.Join(t.TempDir(), "isolated")
	if err := os.WriteFile(list, []byte("1-3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	newVisitor(time.Hour, list).run(func(cpu int) { t.Errorf("visited CPU %d", cpu) })
}
