// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
)

// notifier tells systemd how the service is (sd_notify(3)). It connects at
// once, since a confined process cannot.
type notifier struct{ conn *net.UnixConn }

// newNotifier takes the value of NOTIFY_SOCKET; without one, Notify does nothing.
func newNotifier(address string) (notifier, error) {
	if address == "" {
		return notifier{}, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return notifier{}, fmt.Errorf("connect to systemd: %w", err)
	}
	return notifier{conn}, nil
}

// Notify sends a state, such as READY=1. A state that cannot be sent is dropped:
// fbppd serves its VM whether or not systemd still listens.
func (n notifier) Notify(state string) {
	if n.conn != nil {
		_, _ = n.conn.Write([]byte(state))
	}
}

// Close closes the connection.
func (n notifier) Close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
}
