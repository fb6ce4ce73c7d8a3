// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen creates the socket at path, for its owner alone (mode 0600, whatever
// the umask). A socket that a dead process left behind is replaced; one that
// somebody listens on, and a file that is no socket, are errors. Close removes
// it.
func Listen(path string) (net.Listener, error) {
	if err := Check(path); err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	l, err := listen(path)
	if errors.Is(err, unix.EADDRINUSE) && isStale(path) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale socket: %w", err)
		}
		l, err = listen(path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	return l, nil
}

// isStale says whether a socket is at path that nobody listens on. Whoever
// listens and is too busy to take a connection refuses none.
func isStale(path string) bool {
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// listen restricts the socket before it has a path: the file takes over the
// mode, and at no moment others may connect.
func listen(path string) (net.Listener, error) {
	restrict := func(_, _ string, c syscall.RawConn) (err error) {
		if ctlErr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); ctlErr != nil {
			return ctlErr
		}
		return os.NewSyscallError("fchmod", err)
	}
	return (&net.ListenConfig{Control: restrict}).Listen(context.Background(), "unix", path)
}
