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

// Backend is an fbppd process, and the place where QEMU finds it: the process
// can be killed and started again at the same place.
type Backend struct {
	Socket      string // for [Config].Backend
	AgentSocket string // for [Config].AgentSocket
	ControlPath string
	Control     *control.Client

	path    string
	args    []string
	dir     string
	process *process
	before  string // what earlier processes said
}

// StartBackend starts the fbppd at path with further arguments, and returns
// when it listens. The caller closes it.
func StartBackend(ctx context.Context, path string, args ...string) (*Backend, error) {
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
	// The control socket comes last.
	return b.process.await(ctx, "control socket", func() bool {
		_, err := b.Control.Status(ctx)
		return err == nil
	})
}

// Kill ends fbppd without giving it a chance to say goodbye.
func (b *Backend) Kill() { b.process.kill() }

// Signal sends a signal to fbppd.
func (b *Backend) Signal(s syscall.Signal) { b.process.signal(s) }

// PID returns the process id of fbppd.
func (b *Backend) PID() int { return b.process.cmd.Process.Pid }

// PeakMiB returns the most memory that fbppd has held at once so far, guest memory
// that it has touched through its mapping included: VmHWM of proc(5).
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

// Log returns what all its processes printed.
func (b *Backend) Log() string { return b.before + b.process.said.String() }

// AwaitDriver waits until the guest's driver is known, and returns its state:
// "ready" or "refuses".
func (b *Backend) AwaitDriver(ctx context.Context) (string, error) {
	var s device.Status
	err := b.process.await(ctx, "the guest's driver", func() bool {
		var err error
		s, err = b.Control.Status(ctx)
		return err == nil && s.Driver != nil
	})
	return s.DriverState, err
}

// AwaitKernel waits until fbppd knows the guest's kernel without the guest. It has
// to be started so that it looks.
func (b *Backend) AwaitKernel(ctx context.Context) error {
	return b.process.await(ctx, "the guest's kernel", func() bool {
		s, err := b.Control.Status(ctx)
		return err == nil && s.Kernel != nil && s.Kernel.Release != "" && s.Kernel.Why == ""
	})
}

// AwaitRequest waits until a request to the guest is open.
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
