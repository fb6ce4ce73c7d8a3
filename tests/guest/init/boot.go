// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/guest/ctl"
)

// port returns the serial port of the order channel; the first one is the console.
func port() string {
	if runtime.GOARCH == "arm64" {
		return "/dev/ttyAMA1"
	}
	return "/dev/ttyS1"
}

// boot sets the guest up and takes orders. When it returns, process 1 ends, and the
// kernel panics. QEMU then exits; the console says why.
func boot() error {
	if err := mountAll(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	return takeOrders()
}

// takeOrders says that the guest is ready, and takes orders.
func takeOrders() error {
	tty, err := openRaw(port())
	if err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("read the kernel's name: %w", err)
	}
	if err := tryTimers(); err != nil {
		return err
	}
	server := ctl.NewServer(tty)
	if err := server.Ready(unix.ByteSliceToString(uts.Release[:])); err != nil {
		return err
	}
	return server.Serve(tty)
}

// mountAll mounts the pseudo file systems that programs expect.
func mountAll() error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/tmp"},
		{"debugfs", "/sys/kernel/debug"},
		{"tracefs", "/sys/kernel/tracing"},
		{"securityfs", "/sys/kernel/security"},
		{"bpf", "/sys/fs/bpf"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// loadModules loads the modules in a folder in the order of their names.
func loadModules(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load module %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// openRaw opens a serial port in raw mode.
func openRaw(path string) (*os.File, error) {
	// os.OpenFile would make the port non-blocking, and poll it. A blocking read
	// is enough here.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read the settings of %s: %w", path, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("set %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
