// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// threads are how many a Go process has at least.
const threads = 4

// printConfined is a child that confines itself, and prints the status of its threads.
func printConfined() error {
	if err := errors.Join(confine(true), limitLoad()); err != nil {
		return err
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	var cpu unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &cpu); err != nil {
		return err
	}
	fmt.Printf("Dumpable:\t%d\nSeconds:\t%d\n", dumpable, cpu.Max)
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			return err
		}
		os.Stdout.Write(text)
	}
	return nil
}

// confined returns what a line says of a confined child, or the status of each of its threads.
func confined(t *testing.T, line string, atLeast int) (of [][]string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), self, "confine").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	of = regexp.MustCompile(`(?m)^`+line+`$`).FindAllStringSubmatch(string(out), -1)
	if len(of) < atLeast {
		t.Fatalf("%d such lines in:\n%s", len(of), out)
	}
	return of
}

// A child that an object has taken over has no other capabilities than those that load programs.
func TestChildGivesUpWhatItDoesNotNeed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, which has capabilities to give up")
	}
	const perfmon, bpf = 38, 39
	for _, set := range confined(t, `Cap(Inh|Prm|Eff|Amb):\s+([0-9a-f]+)`, threads) {
		mask, err := strconv.ParseUint(set[2], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if mask&^(1<<perfmon|1<<bpf) != 0 {
			t.Errorf("the set %s is %#x", set[1], mask)
		}
	}
}

func TestNoThreadOfAChildCanGetMore(t *testing.T) {
	for i, flag := range confined(t, `NoNewPrivs:\s+(\d)`, threads) {
		if flag[1] != "1" {
			t.Errorf("thread %d could get more", i)
		}
	}
}

// Another loader has the same capabilities, and could trace it else.
func TestNoLoaderCanTraceAnother(t *testing.T) {
	if of := confined(t, `Dumpable:\s+(\d)`, 1); of[0][1] != "0" {
		t.Error("a loader can be traced")
	}
}

// What a child has prepared costs the load nothing, and gives it nothing.
func TestLoadHasTheTimeOfOneLoad(t *testing.T) {
	of := confined(t, `Seconds:\s+(\d+)`, 1)
	if cpu, err := strconv.Atoi(of[0][1]); err != nil || cpu < childCPU || cpu > childCPU+5 {
		t.Errorf("a load has %v seconds of processor time, want %v", cpu, childCPU)
	}
}
