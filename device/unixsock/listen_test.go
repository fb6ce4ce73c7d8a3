// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	defer unix.Umask(unix.Umask(0)) // the process's own, which must not matter
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
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a process that was killed
	l.Close()
	l, err = Listen(path)
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	l.Close()
}
