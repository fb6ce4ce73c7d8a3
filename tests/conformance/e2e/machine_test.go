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

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// hangTimeout bounds a test that hangs.
const hangTimeout = 4 * time.Minute

// parts are what all tests share.
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

// conformPackage is the program.
const conformPackage = "github.com/fbpp-project/fbpp/cmd/fbpp-conform"

// The hostile driver, which runs in the agent's place.
const (
	hostilePackage = "github.com/fbpp-project/fbpp/tests/guest/hostile"
	hostilePath    = "/hostile"
)

// machine is a guest, and the place where its device will listen.
type machine struct {
	ctx    context.Context
	t      *testing.T
	vm     *vm.VM
	socket string
}

// agentName is the agent among the programs of a guest.
const agentName = "agent"

// boot starts a guest. Its device has no backend yet.
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
	config, err := parts.Config(series, 320, map[string]string{hostilePath: hostile})
	if err != nil {
		t.Fatal(err)
	}
	config.Backend = m.socket
	t.Cleanup(m.close)
	lost := func(err error) { t.Logf("the guest died while it booted, once more: %v", err) }
	err = vm.RetryBoot(config.Accel, lost, func() (err error) {
		m.stop()
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

// close explains a failure, and ends the guest.
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

// startAgent starts the agent. It waits by itself for a device with a backend.
func (m *machine) startAgent(ctx context.Context) error {
	return m.vm.Spawn(ctx, agentName, lab.AgentPath, "--log-level=debug")
}

// execute returns what runs a QMP command without arguments.
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
