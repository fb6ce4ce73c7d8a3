// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/qmp"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
)

// VM is one QEMU process and its guest. It is safe for concurrent use.
type VM struct {
	Config Config
	Guest  *ctl.Client // orders to the guest

	dir       string
	incoming  bool
	receiving atomic.Bool // the destination was told where to receive from
	process   *process
	monitor   *qmp.Monitor
}

// Start starts QEMU with a guest that boots, and returns when QEMU's monitor answers.
// The caller waits for the guest with [VM.Boot], and closes the VM.
func Start(ctx context.Context, c Config) (*VM, error) { return start(ctx, c, false) }

// StartIncoming starts QEMU as the destination of a migration. Its configuration has
// to match that of the source. The caller closes the VM.
func StartIncoming(ctx context.Context, c Config) (*VM, error) { return start(ctx, c, true) }

func start(ctx context.Context, c Config, incoming bool) (_ *VM, err error) {
	dir, err := os.MkdirTemp("", "fbpp-vm-")
	if err != nil {
		return nil, fmt.Errorf("start VM: %w", err)
	}
	v := &VM{Config: c, dir: dir, incoming: incoming}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start VM: %w\n%s", err, v.Diagnosis())
			v.Close()
		}
	}()
	monitors, err := net.Listen("unix", filepath.Join(dir, monitorSocket))
	if err != nil {
		return nil, err
	}
	defer monitors.Close()
	orders, err := net.Listen("unix", filepath.Join(dir, orderSocket))
	if err != nil {
		return nil, err
	}
	defer orders.Close()

	if c.UEFI != nil {
		if err := c.UEFI.copyVariables(dir); err != nil {
			return nil, err
		}
	}
	if v.process, err = startProcess("QEMU", c.QEMU, c.args(dir, incoming)); err != nil {
		return nil, err
	}
	conn, err := v.accept(ctx, orders)
	if err != nil {
		return nil, err
	}
	v.Guest = ctl.NewClient(conn)
	if conn, err = v.accept(ctx, monitors); err != nil {
		return nil, err
	}
	if v.monitor, err = qmp.New(ctx, conn); err != nil {
		v.awaitEnd(ctx)
		return nil, err
	}
	return v, nil
}

// awaitEnd waits for the end of a QEMU that has closed a socket, so that what it said is known. One
// that has another reason to close it is not waited for long.
func (v *VM) awaitEnd(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_ = v.process.wait(ctx) // its error is that of the wait, or part of what it said
}

// accept waits for QEMU to connect, or to end.
func (v *VM) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-v.process.done:
		case <-ctx.Done():
		}
		l.Close()
	}()
	conn, err := l.Accept()
	if err == nil {
		return conn, nil
	}
	if v.process.ended() {
		said := errors.New(strings.TrimSpace(v.process.said.String()))
		return nil, fmt.Errorf("QEMU ended: %w", errors.Join(v.process.err, said))
	}
	return nil, errors.Join(err, context.Cause(ctx))
}

// tcgAssertion fails in stock QEMU, now and then, when a CPU looks up a page while the guest maps
// a device's registers (system/physmem.c, with several CPUs under TCG).
const tcgAssertion = "iotlb_to_section: Assertion"

// Boot waits until the guest takes orders, and returns its kernel's release. The error
// wraps ctl.ErrClosed if the guest died, but not if QEMU crashed, unless by a known fault of TCG.
func (v *VM) Boot(ctx context.Context) (string, error) {
	release, err := v.Guest.Ready(ctx)
	if errors.Is(err, ctl.ErrClosed) {
		// If the guest panics or resets, QEMU exits with status 0.
		wait, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_ = v.process.wait(wait) // its error may be that of the wait: see process.err
		if v.process.ended() && v.process.err != nil {
			crash := fmt.Errorf("QEMU crashed: %w\n%s", v.process.err, v.Diagnosis())
			if strings.Contains(crash.Error(), tcgAssertion) {
				crash = fmt.Errorf("%w: %w", ctl.ErrClosed, crash)
			}
			return "", crash
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, v.Diagnosis())
	}
	return release, nil
}

// Execute runs a QMP command; see QEMU's reference for arguments and results.
// Either may be nil.
func (v *VM) Execute(ctx context.Context, command string, args, result any) error {
	return v.monitor.Execute(ctx, command, args, result)
}

// Events returns the data of the events of one name that QEMU has emitted before it
// replied to the newest command, the newest last.
func (v *VM) Events(name string) []json.RawMessage { return v.monitor.Events(name) }

// SetDevice sets a property of the fbpp device while the VM runs.
func (v *VM) SetDevice(ctx context.Context, property string, value any) error {
	return v.Execute(ctx, "qom-set", map[string]any{
		"path": "/machine/peripheral/" + deviceID, "property": property, "value": value,
	}, nil)
}

// Device reads a property of the fbpp device into value.
func (v *VM) Device(ctx context.Context, property string, value any) error {
	return v.Execute(ctx, "qom-get", map[string]any{
		"path": "/machine/peripheral/" + deviceID, "property": property,
	}, value)
}

// Status returns QEMU's run state, such as "running" (RunState of QAPI).
func (v *VM) Status(ctx context.Context) (string, error) {
	var s struct{ Status string }
	err := v.Execute(ctx, "query-status", nil, &s)
	return s.Status, err
}

// PID returns the process id of QEMU.
func (v *VM) PID() int { return v.process.cmd.Process.Pid }

// Messages returns what QEMU has printed on standard output and error.
func (v *VM) Messages() string { return v.process.said.String() }

// Signal sends a signal to QEMU.
func (v *VM) Signal(s syscall.Signal) { v.process.signal(s) }

// Wait waits for QEMU to end by itself.
func (v *VM) Wait(ctx context.Context) error { return v.process.wait(ctx) }

// Ended tells whether QEMU has ended.
func (v *VM) Ended() bool { return v.process.ended() }

// consoleLines bounds how much of the console a diagnosis shows.
const consoleLines = 60

// Diagnosis returns text that helps to find out why a VM failed: the command line,
// QEMU's messages and the end of the guest's console.
func (v *VM) Diagnosis() string {
	var b strings.Builder
	fmt.Fprintf(&b, "reproduce with: %s\n",
		commandLine(v.Config.QEMU, v.Config.args(v.dir, v.incoming)))
	if v.process != nil {
		if said := strings.TrimSpace(v.process.said.String()); said != "" {
			fmt.Fprintf(&b, "QEMU said: %s\n", said)
		}
	}
	console := v.Console()
	if console == "" {
		return b.String()
	}
	lines := strings.Split(strings.TrimSpace(console), "\n")
	if len(lines) > consoleLines {
		lines = lines[len(lines)-consoleLines:]
	}
	fmt.Fprintf(&b, "the guest's console:\n%s\n", strings.Join(lines, "\n"))
	return b.String()
}

// Console returns the guest's console output of this QEMU process. It is empty if it
// cannot be read.
func (v *VM) Console() string {
	text, err := os.ReadFile(filepath.Join(v.dir, consoleLog))
	if err != nil {
		return ""
	}
	return string(text)
}

// Close kills QEMU and removes its folder.
func (v *VM) Close() error {
	if v.process != nil {
		v.process.kill()
	}
	if v.monitor != nil {
		v.monitor.Close()
	}
	if v.Guest != nil {
		v.Guest.Close()
	}
	return os.RemoveAll(v.dir)
}
