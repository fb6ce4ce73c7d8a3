// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// previousFile names the commit that this one is tried against. Its messages between fbppd,
// agent and QEMU are others than now. There are no releases yet.
const previousFile = "PREVIOUS"

// previousAgent is the path of the previous version's agent in a guest.
const previousAgent = "/fbpp-agent-previous"

// runIn runs a program in dir, and returns what it printed on standard output.
func runIn(t *testing.T, dir, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var said strings.Builder
	cmd.Dir, cmd.Stderr = dir, &said
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, said.String())
	}
	return strings.TrimSpace(string(out)), err
}

// previousTree returns a folder with the sources of the previous version, and with its fbppd
// and fbpp-agent. The test is skipped where the clone does not have that commit.
func previousTree(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(previousFile)
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(text))
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("the previous version is not tried: git is not installed")
	}
	if _, err := runIn(t, parts.Root, "git", "cat-file", "-e", commit+"^{commit}"); err != nil {
		t.Skipf("the previous version is not tried: this clone has no commit %s, as it is shallow "+
			"or no clone (git fetch --unshallow)", commit)
	}
	dir := t.TempDir()
	archive := filepath.Join(t.TempDir(), "tree.tar")
	for _, command := range [][]string{
		{"git", "-C", parts.Root, "archive", "--output=" + archive, commit},
		{"tar", "-xf", archive, "-C", dir},
		{"go", "build", "-trimpath", "-buildvcs=false", "-o", dir + "/", "./cmd/fbppd",
			"./cmd/fbpp-agent"},
	} {
		if _, err := runIn(t, dir, command[0], command[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// bootWithPrevious boots a guest that has both agents, and runs the present one.
func bootWithPrevious(t *testing.T, dir string) *machine {
	return boot(t, setup{files: map[string]string{previousAgent: filepath.Join(dir, "fbpp-agent")}})
}

// changeAgent runs another of the guest's agents.
func (m *machine) changeAgent(path string) {
	m.t.Helper()
	m.signalAgent(syscall.SIGTERM)
	m.waitAgent()
	m.setup.agent = path
	m.startAgent()
}

// migrateAndSkip moves the guest, and requires that free memory was skipped.
func (m *machine) migrateAndSkip(how string) {
	m.t.Helper()
	requireHints(m.t, m.migrate(), "ok")
	m.requireSound()
	m.awaitDriver()
	m.t.Logf("%s: hints were used", how)
}

// fbppd and the agent of the previous version work with those of this one: in each pair the
// guest is moved to a host with the other fbppd, which takes over the agent, and back.
func TestPreviousFBPPDAndAgent(t *testing.T) {
	dir := previousTree(t)
	m := bootWithPrevious(t, dir)
	old := filepath.Join(dir, "fbppd")
	for _, agent := range []struct{ name, path string }{
		{"this agent", ""}, {"the previous agent", previousAgent},
	} {
		if agent.path != "" {
			m.changeAgent(agent.path)
		}
		m.setup.fbppd = old
		m.migrateAndSkip(agent.name + ", from this fbppd to the previous one")
		m.setup.fbppd = ""
		m.migrateAndSkip(agent.name + ", from the previous fbppd to this one")
	}
}

// A guest moves from the previous version's QEMU to this one and back, with either fbppd and
// either agent: each combination of the three, at both ends. That QEMU takes long to build:
// without -soak the test needs it in the cache.
func TestPreviousQEMU(t *testing.T) {
	dir := previousTree(t)
	script := filepath.Join(dir, "qemu-patches", "qemu.sh")
	path, err := runIn(t, dir, script, "path")
	if err != nil && strings.Contains(err.Error(), "no series for QEMU") {
		t.Skipf("there is no previous QEMU: that version had %v", err)
	}
	if err != nil && *soak {
		path, err = runIn(t, dir, script, "build")
		if err != nil {
			t.Fatal(err)
		}
	}
	if err != nil {
		t.Skipf("the previous QEMU is not tried, as it is not in the cache: make soak builds it: %v",
			err)
	}
	m := bootWithPrevious(t, dir)
	present := m.config.QEMU
	old := filepath.Join(dir, "fbppd")
	for _, with := range []struct{ name, agent, fbppd string }{
		{"this fbppd and agent", "", ""},
		{"the previous fbppd and this agent", "", old},
		{"the previous fbppd and agent", previousAgent, old},
		{"this fbppd and the previous agent", previousAgent, ""},
	} {
		if with.agent != m.setup.agent {
			m.changeAgent(with.agent)
		}
		m.setup.fbppd = with.fbppd
		m.config.QEMU = path
		m.migrateAndSkip(with.name + ", from this QEMU to the previous one")
		m.config.QEMU = present
		m.migrateAndSkip(with.name + ", from the previous QEMU to this one")
	}
}
