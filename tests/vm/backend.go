// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// Backend is an fbppd process and its sockets. After [Backend.Kill], Restart starts a
// new process with the same sockets.
type Backend struct {
	Socket      string // for [Config].Backend
	AgentSocket string // for [Config].AgentSocket
	ControlPath string
	Control     *control.Client

	path    string
	args    []string
	dir     string
	process *process
	before  string // the output of earlier processes
}

// StartBackend starts the program fbppd at path with further arguments, and returns
// when it listens on its sockets. The caller closes the Backend. The guest may report by its
// serial port only with --agent-port=report: with that QEMU asks without a driver, too.
func StartBackend(ctx context.Context, path string, args ...string) (*Backend, error) {
	return StartOtherBackend(ctx, path, append([]string{"--agent-port=refuse-only"}, args...)...)
}

// StartOtherBackend is StartBackend for an fbppd of another version, which may not know all
// options.
func StartOtherBackend(ctx context.Context, path string, args ...string) (*Backend, error) {
	dir, err := os.MkdirTemp("", "fbpp-be-")
	if err != nil {
		return nil, fmt.Errorf("start fbppd: %w", err)
	}
	b := &Backend{
		Socket:      filepath.Join(dir, "fbpp.sock"),
		AgentSocket: filepath.Join(dir, "agent.sock"),
		ControlPath: filepath.Join(dir, "control.sock"),
		path:        path,
		dir:         dir,
	}
	b.Control = control.NewClient(b.ControlPath)
	b.args = append([]string{"--socket-path=" + b.Socket, "--control-path=" + b.ControlPath,
		"--agent-socket=" + b.AgentSocket, "--log-level=debug"}, args...)
	if err := b.Restart(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Restart starts fbppd after a [Backend.Kill].
func (b *Backend) Restart(ctx context.Context) (err error) {
	if b.process != nil {
		b.before += b.process.said.String()
	}
	if b.process, err = startProcess("fbppd", b.path, b.args); err != nil {
		return err
	}
	// fbppd opens its control socket last.
	return b.process.await(ctx, "control socket", func() bool {
		_, err := b.Control.Status(ctx)
		return err == nil
	})
}

// Kill kills fbppd with SIGKILL, and waits until it has ended.
func (b *Backend) Kill() { b.process.kill() }

// Signal sends a signal to fbppd.
func (b *Backend) Signal(s syscall.Signal) { b.process.signal(s) }

// PID returns the process id of fbppd.
func (b *Backend) PID() int { return b.process.cmd.Process.Pid }

// PeakMiB returns the peak resident memory of fbppd so far, in MiB. It includes guest
// memory that fbppd has accessed through its mapping: VmHWM of proc(5).
func (b *Backend) PeakMiB() (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.PID()))
	if err != nil {
		return 0, fmt.Errorf("read fbppd's peak: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib >> 10, nil
		}
	}
	return 0, errors.New("/proc/PID/status has no VmHWM")
}

// Log returns the output of all processes that this Backend has started.
func (b *Backend) Log() string { return b.before + b.process.said.String() }

// AwaitDriver waits until fbppd knows the guest's driver, and returns the driver's
// state: "ready" or "refuses".
func (b *Backend) AwaitDriver(ctx context.Context) (string, error) {
	var s device.Status
	err := b.process.await(ctx, "the guest's driver", func() bool {
		var err error
		s, err = b.Control.Status(ctx)
		return err == nil && s.Driver != nil
	})
	return s.DriverState, err
}

// AwaitKernel waits until fbppd has found the guest's kernel by introspection. fbppd
// has to run with --source=introspect or --source=auto.
func (b *Backend) AwaitKernel(ctx context.Context) error {
	return b.process.await(ctx, "the guest's kernel", func() bool {
		s, err := b.Control.Status(ctx)
		return err == nil && s.Kernel != nil && s.Kernel.Release != "" && s.Kernel.Why == ""
	})
}

// AwaitRequest waits until fbppd has asked the guest and waits for the answer.
func (b *Backend) AwaitRequest(ctx context.Context) error {
	return b.process.await(ctx, "a request", func() bool {
		s, err := b.Control.Status(ctx)
		return err == nil && s.Asking
	})
}

// Close ends fbppd and removes its sockets.
func (b *Backend) Close() error {
	if b.process != nil {
		b.process.kill()
	}
	return os.RemoveAll(b.dir)
}
