// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	defer unix.Umask(unix.Umask(0)) // the mode must not depend on the process's umask
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v, want mode 0600", st, err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a socket that answers was replaced")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as if the process had been killed
	l.Close()
	l, err = Listen(path)
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	l.Close()
}

func TestListenReplacesNothingElse(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if l, err := Listen(path); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: got %v, %v, want EADDRINUSE", filepath.Base(path), l, err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
			t.Errorf("%s holds %q, %v, after it was listened on", filepath.Base(path), text, err)
		}
	}
}

func TestListenDoesNotReplaceABusyListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}),
		unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for { // until its backlog is full
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer c.Close()
	}
	if l, err := Listen(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("got %v, %v, want EADDRINUSE", l, err)
	}
}
