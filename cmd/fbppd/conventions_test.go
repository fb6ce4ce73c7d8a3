// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// backends are the programs that follow the conventions for backend programs in
// QEMU's docs/interop/vhost-user.rst, with the other options that they need.
var backends = []struct {
	pkg  string
	args []string
}{
	{"cmd/fbppd", nil},
	{"vhostuser/examples/vhost-user-rng", nil},
	{"vhostuser/examples/vhost-user-blk", []string{"--blk-file=" + os.Args[0], "--read-only"}},
}

// build builds all backends into a folder.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-o", dir}
	for _, b := range backends {
		args = append(args, "github.com/fbpp-project/fbpp/"+b.pkg)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// realize does what QEMU does when it realizes the device.
func realize(t *testing.T, f *vhosttest.Frontend) {
	t.Helper()
	if err := f.Realize(vhosttest.Options{}); err != nil {
		t.Fatal(err)
	}
}

// dial waits for the backend to listen.
func dial(t *testing.T, path string) *vhosttest.Frontend {
	t.Helper()
	for range 1000 {
		if f, err := vhosttest.Dial(path); err == nil {
			t.Cleanup(f.Close)
			return f
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the backend does not listen")
	return nil
}

// end sends SIGTERM and waits for exit status 0.
func end(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait(t, cmd)
}

func wait(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("end: %v, want a clean one", err)
	}
}

func TestBackendProgramsFollowTheConventions(t *testing.T) {
	dir := build(t)
	for _, b := range backends {
		program := filepath.Join(dir, filepath.Base(b.pkg))
		t.Run(filepath.Base(b.pkg), func(t *testing.T) {
			t.Run("prints its capabilities despite wrong options", func(t *testing.T) {
				args := []string{"--fd=99", "--no-such-option", "--print-capabilities", "argument"}
				out, err := exec.Command(program, args...).Output()
				var printed struct{ Type string }
				err = errors.Join(err, json.Unmarshal(out, &printed))
				if err != nil || printed.Type == "" {
					t.Errorf("printed %q: %v", out, err)
				}
			})
			t.Run("prints its version", func(t *testing.T) {
				out, err := exec.Command(program, "--version").Output()
				if err != nil || !strings.HasPrefix(string(out), filepath.Base(program)+" ") {
					t.Errorf("printed %q: %v", out, err)
				}
			})
			t.Run("fails when it cannot print its capabilities", func(t *testing.T) {
				full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer full.Close()
				cmd := exec.Command(program, "--print-capabilities")
				var stderr strings.Builder
				cmd.Stdout, cmd.Stderr = full, &stderr
				var exit *exec.ExitError
				err = cmd.Run()
				said := stderr.String()
				if !errors.As(err, &exit) || !strings.Contains(said, "no space left") {
					t.Errorf("%v, and it said %q", err, said)
				}
			})
			t.Run("names a socket path that is too long", func(t *testing.T) {
				long := "--socket-path=/tmp/" + strings.Repeat("x", 107)
				out, err := exec.Command(program, append([]string{long}, b.args...)...).CombinedOutput()
				if err == nil || !strings.Contains(string(out), "has 112 bytes, and may have 107") {
					t.Errorf("%v, and it said %q", err, out)
				}
			})
			t.Run("fails early on a bad command line", func(t *testing.T) {
				for _, args := range [][]string{
					{}, {"--fd=3", "--socket-path=/x"}, {"--fd=99"},
					{"--socket-path=/missing/socket"},
				} {
					err := exec.Command(program, append(args, b.args...)...).Run()
					var exit *exec.ExitError
					if !errors.As(err, &exit) || exit.ExitCode() <= 0 {
						t.Errorf("%q: %v", args, err)
					}
				}
			})
			t.Run("serves with its standard descriptors closed", func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "s")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				script := []string{"-c", `exec "$0" "$@" <&- >&- 2>&-`}
				args := append(append(script, program, "--socket-path="+path), b.args...)
				cmd := exec.CommandContext(ctx, "sh", args...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				f := dial(t, path)
				realize(t, f)
				f.Close()
				realize(t, dial(t, path)) // end it while it is connected
				end(t, cmd)
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the socket is left behind: %v", err)
				}
			})
			t.Run("tells a connected descriptor from a listening one", func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "s")
				listening, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				err = errors.Join(err, unix.Bind(listening, &unix.SockaddrUnix{Name: path}),
					unix.Listen(listening, 1))
				if err != nil {
					t.Fatal(err)
				}
				cmd := inherit(t, program, listening, b.args)
				for range 2 {
					f := dial(t, path)
					realize(t, f)
					f.Close()
				}
				end(t, cmd)

				pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				cmd = inherit(t, program, pair[1], b.args)
				conn, err := wire.NewConnFD(pair[0], "frontend")
				if err != nil {
					t.Fatal(err)
				}
				f := vhosttest.New(conn)
				realize(t, f)
				f.Close()
				wait(t, cmd) // it ends with its connection
			})
		})
	}
}

// inherit starts a program with the socket fd as its --fd. It closes fd.
func inherit(t *testing.T, program string, fd int, args []string) *exec.Cmd {
	t.Helper()
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	cmd := exec.Command(program, append([]string{"--fd=3"}, args...)...)
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}
