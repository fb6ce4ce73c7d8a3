// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
)

// guestTag is the build tag of tests that run in a guest.
const guestTag = "guest"

// passed matches the line of a top-level test that passed.
var passed = regexp.MustCompile(`(?m)^--- PASS: (\S+) `)

// The driver's own tests pass on every kernel. A skipped test is a failure here,
// because there is no other place where it would run.
func TestDriverInTheGuest(t *testing.T) {
	packages := guestPackages(t)
	files := make(map[string]string)
	for _, p := range packages {
		dir := filepath.Join(parts.Root, "build", "guest")
		binary, err := guest.BuildTest(t.Context(), p, guestTag, dir)
		if err != nil {
			t.Fatal(err)
		}
		files[inGuest(p)] = binary
	}
	for _, series := range guest.AllSeries() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, setup{
				series: series, memoryMiB: 1024, noAgent: true, noIntegrity: true, files: files,
				// The tests of package virtio drive this device of QEMU.
				devices: []string{"virtio-rng-pci,disable-legacy=on"},
				// A huge page that is mapped in part is counted whole by a census, and in part
				// by the kernel: only who asks for one has any.
				kernelLine: []string{"transparent_hugepage=madvise"},
			})
			for _, p := range packages {
				t.Run(path.Base(p), func(t *testing.T) {
					defer m.in(t)()
					runInGuest(t, m, inGuest(p))
				})
			}
		})
	}
}

// inGuest is where the tests of a package are in the guest.
func inGuest(pkg string) string { return "/tests/" + path.Base(pkg) + ".test" }

// runInGuest runs a test binary, and requires each of its tests to pass.
func runInGuest(t *testing.T, m *machine, binary string) {
	list, err := m.vm.Run(m.ctx, binary, "-test.list", "^(Test|Fuzz)")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(list)
	if len(want) == 0 {
		t.Fatalf("%s holds no tests", binary)
	}
	out := m.runToEnd(binary, "-test.v", "-test.timeout=120s")
	var got []string
	for _, match := range passed.FindAllStringSubmatch(out, -1) {
		got = append(got, match[1])
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("%s did not pass: %s", name, out)
		}
	}
	t.Logf("%d of %d tests passed", len(got), len(want))
}

// runToEnd runs a program in the guest, and returns what it printed. It gives up
// a program that hangs before the test's own time is up, to show its output.
func (m *machine) runToEnd(args ...string) string {
	m.t.Helper()
	const name = "tests"
	ctx, cancel := context.WithTimeout(m.ctx, 3*time.Minute)
	defer cancel()
	if err := m.vm.Spawn(ctx, name, args...); err != nil {
		m.t.Fatal(err)
	}
	r, err := m.vm.Guest.Do(ctx, ctl.Request{Op: ctl.OpWait, Name: name})
	if err != nil {
		said, _ := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpOutput, Name: name})
		m.t.Fatalf("%v; it printed:\n%s", err, said.Output)
	}
	if r.Exit != 0 {
		m.t.Fatalf("exit status %d:\n%s", r.Exit, r.Output)
	}
	return r.Output
}

// guestPackages lists the packages of the driver that have tests for a guest.
func guestPackages(t *testing.T) []string {
	t.Helper()
	with, without := testFiles(t, "-tags="+guestTag), testFiles(t)
	var packages []string
	for pkg, files := range with {
		if files != without[pkg] {
			packages = append(packages, pkg)
		}
	}
	if len(packages) == 0 {
		t.Fatal("the driver has no tests for a guest")
	}
	slices.Sort(packages)
	return packages
}

// testFiles maps each package of the driver to the list of its test files.
func testFiles(t *testing.T, flags ...string) map[string]string {
	t.Helper()
	const format = "{{.ImportPath}} {{.TestGoFiles}}{{.XTestGoFiles}}"
	args := append([]string{"list", "-f", format}, flags...)
	cmd := exec.CommandContext(t.Context(), "go", append(args, "./driver-ebpf/...")...)
	cmd.Dir = parts.Root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list the driver's packages: %v", err)
	}
	files := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		pkg, list, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[pkg] = list
	}
	return files
}
