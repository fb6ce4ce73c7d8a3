// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Without the addresses of kernel symbols the agent cannot find free pages. It
// refuses, and tells the host and the command line why and what to do.
func TestGuestThatHidesSymbolsRefuses(t *testing.T) {
	const (
		rng = "0000:00:10.0"
		why = "kptr_restrict hides kernel symbols: sysctl kernel.kptr_restrict=1"
	)
	m := boot(t, setup{
		noAgent: true, kernelLine: []string{"sysctl.kernel.kptr_restrict=2"},
		devices: []string{"virtio-rng-pci,disable-legacy=on,bus=pcie.0,addr=0x10"},
	})
	for _, c := range []struct {
		name string
		args []string
		exit int
		says string
	}{
		{"it is asked whether the guest can report", []string{"--check"}, 1, why},
		{"it is asked for a snapshot", []string{"--once", "--json"}, 1, why},
		{"it is asked for both", []string{"--check", "--once"}, 2, "either"},
		{"it is given another device", []string{"--device=" + rng}, 1, "is 1af4:1044, not 1af4:107f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{lab.AgentPath}, c.args...)
			r, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpRun, Args: args})
			if err != nil || r.Exit != c.exit || !strings.Contains(r.Output, c.says) {
				t.Errorf("exit status %d, %v, want %d, and %q in:\n%s", r.Exit, err, c.exit, c.says, r.Output)
			}
		})
	}
	bound, err := m.vm.Run(m.ctx, "/init", "show", "/sys/bus/pci/devices/"+rng+"/uevent")
	if err != nil || !strings.Contains(bound, "DRIVER=virtio-pci\n") {
		t.Errorf("the other device is %q, %v; want it with its driver", bound, err)
	}
	if err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath); err != nil {
		t.Fatal(err)
	}
	state, err := m.backend.AwaitDriver(m.ctx)
	if err != nil || state != "refuses" {
		t.Fatalf("the driver is %q, %v", state, err)
	}
	status, err := m.backend.Control.Status(m.ctx)
	if err != nil || status.Driver.Reason != why {
		t.Errorf("it refuses because of %q, %v; want %q", status.Driver.Reason, err, why)
	}
	requireHints(t, m.migrate(), "refused")
	m.requireSound()
}

// A kernel with PREEMPT_RT takes zone->lock with interrupts on. To the agent that looks like a
// kernel that does not take it. There, free lists that change during the walk could lead to
// pages that are in use, so the agent refuses. With --source=auto the host looks for itself
// then.
func TestAgentRefusesAKernelThatLeavesInterruptsOn(t *testing.T) {
	const why = "zones printed without zone->lock, or with interrupts on"
	m := boot(t, setup{
		series: guest.RT(), noAgent: true, backendArgs: []string{"--source=auto"},
		device: map[string]string{"hint-timeout": "5000"},
	})
	if err := m.backend.AwaitKernel(m.ctx); err != nil {
		t.Fatal(err)
	}
	args := []string{lab.AgentPath, "--check"}
	r, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpRun, Args: args})
	if err != nil || r.Exit != 1 || !strings.Contains(r.Output, why) {
		t.Errorf("exit status %d, %v, want 1, and %q in:\n%s", r.Exit, err, why, r.Output)
	}
	if err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath); err != nil {
		t.Fatal(err)
	}
	state, err := m.backend.AwaitDriver(m.ctx)
	if err != nil || state != "refuses" {
		t.Fatalf("the driver is %q, %v", state, err)
	}
	status, err := m.backend.Control.Status(m.ctx)
	if err != nil || !strings.Contains(status.Driver.Reason, why) {
		t.Errorf("it refuses because of %q, %v; want %q", status.Driver.Reason, err, why)
	}
	figures := m.migrate()
	requireHints(t, figures, "ok")
	if figures.Hints.Source != vm.SourceIntrospect {
		t.Errorf("%q answered, want %q", figures.Hints.Source, vm.SourceIntrospect)
	}
	m.requireSound()
}
