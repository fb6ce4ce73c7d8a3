// SPDX-License-Identifier: Apache-2.0

package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"kernel.org/pub/linux/libs/security/libcap/cap"
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

// A child that an object has taken over has no other capabilities than those that load programs.
func TestChildGivesUpWhatItDoesNotNeed(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), self, "confine").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const perfmon, bpf = 38, 39
	sets := regexp.MustCompile(`(?m)^Cap(Inh|Prm|Eff|Amb):\s+([0-9a-f]+)$`).
		FindAllStringSubmatch(string(out), -1)
	if len(sets) < 4*4 { // a Go process has some threads
		t.Fatalf("%d sets in:\n%s", len(sets), out)
	}
	for _, set := range sets {
		mask, err := strconv.ParseUint(set[2], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if mask&^(1<<perfmon|1<<bpf) != 0 {
			t.Errorf("the set %s is %#x", set[1], mask)
		}
	}
	flags := regexp.MustCompile(`(?m)^NoNewPrivs:\s+(\d)$`).FindAllStringSubmatch(string(out), -1)
	if len(flags)*4 != len(sets) {
		t.Fatalf("%d flags in:\n%s", len(flags), out)
	}
	for i, flag := range flags {
		if flag[1] != "1" {
			t.Errorf("thread %d of %d could get more", i, len(flags))
		}
	}
	if had, err := cap.GetPID(0); err != nil {
		t.Fatal(err)
	} else if more, err := had.GetFlag(cap.Permitted, cap.SYS_ADMIN); err != nil || !more {
		t.Skipf("the flags are checked; no root (%v, %v): it had no capabilities to drop", had, err)
	}
}
