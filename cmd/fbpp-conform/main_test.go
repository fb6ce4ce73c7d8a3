// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// programs are built once for all tests.
var programs = []string{
	"./cmd/fbpp-conform", "./cmd/fbppd",
	"./vhostuser/examples/vhost-user-rng", "./vhostuser/examples/vhost-user-blk",
}

// bin is the folder with the built programs.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = os.MkdirTemp("", "conform"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(bin)
		build := exec.Command("go", append([]string{"build", "-o", bin + "/"}, programs...)...)
		build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// outcome is a line of the JSON output.
type outcome struct {
	Rule, Outcome, Detail string
	Advice                bool
	Notes                 []string
}

// conform runs fbpp-conform, which starts a backend with the command start. It returns
// the exit status and the outcomes by rule.
func conform(t *testing.T, device, start string, args ...string) (int, map[string]outcome) {
	t.Helper()
	results := filepath.Join(t.TempDir(), "results.json")
	cmd := exec.Command(filepath.Join(bin, "fbpp-conform"), append([]string{"backend",
		"--device", device, "--start", start, "--json", results}, args...)...)
	tap, err := cmd.Output()
	exit := new(exec.ExitError)
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	file, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]outcome)
	for line := range strings.Lines(string(file)) {
		var o outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		if o.Rule != "" {
			found[o.Rule] = o
		}
	}
	if !strings.HasPrefix(string(tap), fmt.Sprintf("TAP version 14\n1..%d # backend\n", len(found))) {
		t.Errorf("TAP begins with %.60q, and there are %d results", tap, len(found))
	}
	return cmd.ProcessState.ExitCode(), found
}

// socket returns a path for a socket, and the option --socket-path with it.
func socket(t *testing.T) (path, option string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "vhost.sock")
	return path, "--socket-path=" + path
}

// expect fails unless the exit status is 0 and no rule was broken but known ones.
func expect(t *testing.T, status int, found map[string]outcome, known ...string) {
	t.Helper()
	if status != report.ExitKept {
		t.Errorf("exit status %d", status)
	}
	for id, o := range found {
		if o.Outcome != "pass" && o.Outcome != "skip" && !strings.Contains(strings.Join(known, " "), id) {
			t.Errorf("%s: %s: %s %q", id, o.Outcome, o.Detail, o.Notes)
		}
	}
}

func TestFbppdKeepsItsSpecification(t *testing.T) {
	t.Parallel()
	path, option := socket(t)
	ctl, agent := path+".ctl", path+".agent"
	start := fmt.Sprintf("%s/fbppd %s --control-path=%s --agent-socket=%s --log-level=error",
		bin, option, ctl, agent)
	status, found := conform(t, "fbpp", start, option, "--control-path", ctl, "--agent-socket", agent)
	// It ignores writes to its configuration, as its specification says.
	expect(t, status, found, "VHU-CFG-6")
	for id, o := range found {
		// With the agent as its source fbppd peeks at nothing, though it offers to.
		peeks := strings.HasPrefix(o.Detail, "backend does not peek")
		if strings.HasPrefix(id, "FBPP-") && o.Outcome != "pass" && !peeks {
			t.Errorf("%s: %s: %s", id, o.Outcome, o.Detail)
		}
	}
}

func TestExampleBackendsKeepTheRules(t *testing.T) {
	for device, args := range map[string]string{"rng": "", "blk": " --blk-file=" + disk(t)} {
		t.Run(device, func(t *testing.T) {
			t.Parallel()
			_, option := socket(t)
			start := fmt.Sprintf("%s/vhost-user-%s %s%s", bin, device, option, args)
			status, found := conform(t, device, start, option)
			expect(t, status, found)
		})
	}
}

// A backend is started by a shell command. All processes of the command end with
// fbpp-conform.
func TestBackendThatAShellStartsEndsWithTheProgram(t *testing.T) {
	path, option := socket(t)
	start := fmt.Sprintf("cd / && umask 077; %s/vhost-user-rng %s; exit $?", bin, option)
	status, found := conform(t, "rng", start, option, "--rule", "VHU-MSG-1")
	expect(t, status, found)
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		t.Error("the backend outlives the program")
	}
}

// disk makes the image of an empty disk of 4 MiB.
func disk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSuitesThatCannotRun(t *testing.T) {
	_, option := socket(t)
	rng := bin + "/vhost-user-rng " + option
	for name, args := range map[string][]string{
		"nobody listens":          {"backend", option},
		"its program is missing":  {"backend", option, "--start", "/nonexistent"},
		"its program ends":        {"backend", option, "--start", "/bin/false"},
		"there is no such rule":   {"backend", option, "--rule", "VHU-NO-*"},
		"there is no such device": {"backend", option, "--device", "toaster"},
		"the socket is not named": {"backend"},
		"the command is unknown":  {"both"},
		"an argument is left":     {"backend", option, "x"},
		"a word after rules":      {"rules", "VHU-MSG-1"},
		"help about nothing":      {"help", "both"},
		"one dash":                {"backend", "-start", "/bin/false"},
		"a negative time":         {"backend", option, "--timeout=-1s"},
		"a patience of 0":         {"backend", option, "--patience=0s"},
		"a time without a unit":   {"backend", option, "--timeout=20"},
		"a path that is too long": {"backend", option + strings.Repeat("x", 107)},
		"another path that is too long": {"backend", option,
			"--control-path=" + strings.Repeat("x", 108)},
		"an abstract socket": {"backend", "--socket-path=@x"},
		"a full disk for results": {"backend", option, "--start", rng,
			"--rule=VHU-MSG-1", "--json=/dev/full"},
		"the format is unknown":              {"backend", option, "--format", "xml"},
		"the file for results has no folder": {"backend", option, "--json", "/nonexistent/x"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "nobody listens" {
				args = append(args, "--rule", "VHU-MSG-1", "--patience", "100ms")
			}
			var out strings.Builder
			status, err := run(context.Background(), args, &out)
			if status != report.ExitError {
				t.Fatalf("exit status %d, %v:\n%s", status, err, out.String())
			}
		})
	}
}

// The exit status says so, and an error is printed.
func TestOutputThatIsLostIsAnError(t *testing.T) {
	for _, arg := range []string{"rules", "help", "--version"} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		cmd := exec.Command(filepath.Join(bin, "fbpp-conform"), arg)
		var stderr strings.Builder
		cmd.Stdout, cmd.Stderr = full, &stderr
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != report.ExitError ||
			!strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: %v, and it said %q", arg, err, stderr.String())
		}
	}
}

func TestRulesAreListed(t *testing.T) {
	var out strings.Builder
	if status, err := run(context.Background(), []string{"rules"}, &out); status != 0 || err != nil {
		t.Fatal(status, err)
	}
	for _, want := range []string{"VHU-MSG-1 ", "VHU-DEAD-7 ", "FBPP-REP-9 ", "FBPP-WIN-8 "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in the list", want)
		}
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		if key := f[0] + f[1]; seen[key] {
			t.Errorf("%s is listed twice", f[1])
		} else {
			seen[key] = true
		}
	}
}
