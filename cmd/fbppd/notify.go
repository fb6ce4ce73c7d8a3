// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
)

// notifier tells systemd the state of the service (sd_notify(3)). It connects when
// it is made, since a confined process cannot connect.
type notifier struct{ conn *net.UnixConn }

// newNotifier connects to the address in NOTIFY_SOCKET. If that is empty, Notify
// does nothing.
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

func (n notifier) Close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
}
