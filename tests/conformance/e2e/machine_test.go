// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// hangTimeout is the longest time that one test may take, and bootTimeout that one boot may.
const (
	hangTimeout = 10 * time.Minute
	bootTimeout = 90 * time.Second
)

// parts is what all tests share: the patched QEMU, guest kernels and our programs.
var parts *lab.Lab

func TestMain(m *testing.M) {
	progress := func(line string) { fmt.Fprintln(os.Stderr, "e2e:", line) }
	l, err := lab.Open(context.Background(), progress)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: cannot start:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "e2e: %s, %s\n", l.Version, l.Accel)
	parts = l
	os.Exit(m.Run())
}

// conformPackage is the program fbpp-conform.
const conformPackage = "github.com/fbpp-project/fbpp/cmd/fbpp-conform"

// The hostile driver breaks a rule on purpose. It runs in place of the agent.
const (
	hostilePackage = "github.com/fbpp-project/fbpp/tests/guest/hostile"
	hostilePath    = "/hostile"
)

// policyPath is where the agent's policy is. It takes the program that the suite offers.
const policyPath = "/policy.json"

// machine is a guest and the socket of its device's backend.
type machine struct {
	ctx    context.Context
	t      *testing.T
	vm     *vm.VM
	socket string
}

// agentName names the agent among the processes that the test starts in the guest.
const agentName = "agent"

// boot starts a guest. No backend listens on the socket yet.
func boot(t *testing.T, series guest.Series) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	t.Cleanup(cancel)
	m := &machine{ctx: ctx, t: t, socket: filepath.Join(t.TempDir(), "device.sock")}
	dir := filepath.Join(parts.Root, "build", "guest")
	hostile, err := guest.BuildProgram(ctx, hostilePackage, dir)
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	text := fmt.Sprintf(`{"pinned": ["%v"]}`, driver.OfferedDigest())
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := parts.Config(series, 320,
		map[string]string{hostilePath: hostile, policyPath: policy})
	if err != nil {
		t.Fatal(err)
	}
	config.Backend = m.socket
	t.Cleanup(m.close)
	lost := func(err error) { t.Logf("the guest died while it booted, once more: %v", err) }
	err = vm.RetryBoot(config.Accel, lost, func() (err error) {
		m.stop()
		ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, vm.ErrHung)
		defer cancel()
		if m.vm, err = vm.Start(ctx, config); err == nil {
			_, err = m.vm.Boot(ctx)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) stop() {
	if m.vm != nil {
		m.vm.Close()
		m.vm = nil
	}
}

// close ends the guest. After a failure it logs what helps to explain it.
func (m *machine) close() {
	if m.vm != nil && m.t.Failed() {
		m.t.Log(m.vm.Diagnosis())
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		said, err := m.agentOutput(ctx)
		m.t.Logf("the agent said (%v):\n%s", err, said)
	}
	m.stop()
}

// startAgent starts the agent. The agent waits until the device has a backend.
func (m *machine) startAgent(ctx context.Context) error {
	return m.vm.Spawn(ctx, agentName, lab.AgentPath, "--log-level=debug",
		"--program-policy="+policyPath)
}

// execute returns a function that runs a QMP command without arguments.
func (m *machine) execute(command string) func(context.Context) error {
	return func(ctx context.Context) error { return m.vm.Execute(ctx, command, nil, nil) }
}

// agentOutput returns what the agent has printed.
func (m *machine) agentOutput(ctx context.Context) (string, error) {
	r, err := m.vm.Guest.Do(ctx, ctl.Request{Op: ctl.OpOutput, Name: agentName})
	return r.Output, err
}

// end ends the agent.
func (m *machine) end(ctx context.Context) error {
	order := ctl.Request{Op: ctl.OpSignal, Name: agentName, Signal: int(syscall.SIGTERM)}
	_, err := m.vm.Guest.Do(ctx, order)
	if err == nil {
		_, err = m.vm.Guest.Do(ctx, ctl.Request{Op: ctl.OpWait, Name: agentName})
	}
	return err
}

// restart ends the agent and starts it again.
func (m *machine) restart(ctx context.Context) error {
	if err := m.end(ctx); err != nil {
		return err
	}
	return m.startAgent(ctx)
}
