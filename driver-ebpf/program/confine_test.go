// SPDX-License-Identifier: Apache-2.0

package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// printConfined is a child that confines itself, and prints the status of its threads.
func printConfined() error {
	if err := confine(); err != nil {
		return err
	}
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

// confined returns what a line of the status of a confined child's threads says, by thread.
func confined(t *testing.T, line string) (of [][]string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), self, "confine").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	of = regexp.MustCompile(`(?m)^`+line+`$`).FindAllStringSubmatch(string(out), -1)
	if len(of) < 4 { // a Go process has some threads
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
	for _, set := range confined(t, `Cap(Inh|Prm|Eff|Amb):\s+([0-9a-f]+)`) {
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
	for i, flag := range confined(t, `NoNewPrivs:\s+(\d)`) {
		if flag[1] != "1" {
			t.Errorf("thread %d could get more", i)
		}
	}
}
