// SPDX-License-Identifier: Apache-2.0

// Package sdnotify tells systemd, where it started the process, how it is
// doing. See sd_notify(3).
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// States.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
)

// Status returns the state that shows a line in `systemctl status`.
func Status(line string) string { return "STATUS=" + strings.ReplaceAll(line, "\n", " ") }

// Notify sends states to the socket that $NOTIFY_SOCKET names. Without one it
// does nothing.
func Notify(states ...string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A leading @ stands for the abstract namespace, for net as for systemd.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
