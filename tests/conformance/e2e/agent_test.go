// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/tests/guest"
)

// notThroughQEMU are rules that the suite cannot check behind QEMU. QEMU answers reads
// of the configuration itself; requireConfigReads examines them in QEMU's trace.
var notThroughQEMU = []string{"FBPP-CFG-3"}

// The agent keeps every rule in every scenario.
func TestAgentKeepsTheRules(t *testing.T) {
	m := boot(t, guest.Linux6_12)
	m.requireConfigReads()
	tap, broken, skipped := m.examine(driver.Config{
		Wait:     time.Minute,
		Control:  driver.Control{Pause: m.execute("stop"), Resume: m.execute("cont"), Restart: m.restart},
		Progress: func(line string) { t.Log(line) },
	})
	if broken != nil || !slices.Equal(skipped, notThroughQEMU) {
		t.Errorf("%v are broken; %v gave no occasion, want %v\n%s", broken, skipped, notThroughQEMU, tap)
	}
	m.requireVerdict("overlapping", "FBPP-REP-4")
}

// The same holds on the older kernel with the program fbpp-conform. Here its user can
// only restart the driver when the program asks for that.
func TestAgentKeepsTheRulesWhenRestartedByHand(t *testing.T) {
	m := boot(t, guest.Linux6_1)
	if err := m.startAgent(m.ctx); err != nil {
		t.Fatal(err)
	}
	program, err := guest.BuildProgram(m.ctx, conformPackage, filepath.Join(parts.Root, "build"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(m.ctx, program, "driver",
		"--socket-path="+m.socket, "--restart-driver=ask", "--wait=1m")
	var tap bytes.Buffer
	cmd.Stdout = &tap
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		t.Log(lines.Text())
		if strings.Contains(lines.Text(), "restart the driver") {
			asked++
			if err := m.restart(m.ctx); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || asked != 1 {
		t.Errorf("asked %d times; %v\n%s", asked, err, tap.String())
	}
	for _, passed := range []string{"FBPP-INIT-3", "FBPP-REP-1", "FBPP-OP-1"} {
		if !regexp.MustCompile(`(?m)^ok \d+ - ` + passed + ` [^#]*$`).MatchString(tap.String()) {
			t.Errorf("%s did not pass\n%s", passed, tap.String())
		}
	}
}

// examine runs the suite. It returns which rules were broken, and which were skipped.
func (m *machine) examine(c driver.Config) (tap string, broken, skipped []string) {
	m.t.Helper()
	var text bytes.Buffer
	c.SocketPath = m.socket
	sort := sink(func(r report.Result) {
		switch r.Outcome {
		case report.Fail:
			broken = append(broken, r.ID)
		case report.Skip:
			skipped = append(skipped, r.ID)
		}
	})
	_, err := report.Run(m.ctx, "driver", driver.NewSuite(c), nil, report.NewTAP(&text), sort)
	if err != nil {
		m.t.Fatal(err)
	}
	return text.String(), broken, skipped
}

// sink is a [report.Sink] that only receives results.
type sink func(report.Result)

func (sink) Begin(string, int) error         { return nil }
func (sink) End(report.Summary, error) error { return nil }

func (f sink) Add(r report.Result) error {
	f(r)
	return nil
}

// requireVerdict replaces the agent by a driver that breaks a rule, and requires that
// the suite finds that rule broken.
func (m *machine) requireVerdict(fault, rule string) {
	m.t.Helper()
	if err := m.end(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	if err := m.vm.Spawn(m.ctx, agentName, hostilePath, fault); err != nil {
		m.t.Fatal(err)
	}
	tap, broken, _ := m.examine(driver.Config{
		Wait: time.Minute, Patience: 3 * time.Second,
		Quiet: 20 * time.Millisecond, Hold: 50 * time.Millisecond,
	})
	if !slices.Contains(broken, rule) {
		m.t.Errorf("%v are broken, want %s among them\n%s", broken, rule, tap)
	}
}

// configRead matches QEMU's trace event for a read of the configuration space.
var configRead = regexp.MustCompile(
	`memory_region_ops_read .* addr 0x([0-9a-f]+) .* size (\d+) name 'virtio-pci-device-`)

// requireConfigReads starts the agent, and requires that it reads nothing past
// the end of the configuration [FBPP-CFG-3].
func (m *machine) requireConfigReads() {
	m.t.Helper()
	trace := func(on bool) {
		args := map[string]any{"name": "memory_region_ops_read", "enable": on}
		if err := m.vm.Execute(m.ctx, "trace-event-set-state", args, nil); err != nil {
			m.t.Fatal(err)
		}
	}
	trace(true)
	if err := m.startAgent(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	for said := ""; !strings.Contains(said, "said hello"); {
		time.Sleep(10 * time.Millisecond)
		var err error
		if said, err = m.agentOutput(m.ctx); err != nil {
			m.t.Fatal(err)
		}
	}
	trace(false)
	reads := configRead.FindAllStringSubmatch(m.vm.Messages(), -1)
	for _, read := range reads {
		address, err := strconv.ParseUint(read[1], 16, 64)
		if err != nil {
			m.t.Fatal(err)
		}
		size, err := strconv.ParseUint(read[2], 10, 8)
		if err != nil {
			m.t.Fatal(err)
		}
		// The structure begins at a page.
		if end := address%4096 + size; end > protocol.ConfigSize {
			m.t.Errorf("%s: up to byte %d of the configuration, which has %d",
				read[0], end, protocol.ConfigSize)
		}
	}
	if len(reads) == 0 {
		m.t.Error("QEMU saw no read of the configuration")
	}
}
