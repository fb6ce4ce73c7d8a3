// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
)

// acceptRetry is how long to wait when a connection cannot be accepted, as when
// the process has no free descriptors.
const acceptRetry = 100 * time.Millisecond

// servePort connects the guest's serial port to dev. QEMU connects the port to l; servePort
// handles one connection at a time. It closes l, and returns nil at the end of ctx. An
// error of a connection is logged; the process goes on.
func servePort(ctx context.Context, l net.Listener, dev *device.Device, lg *zap.Logger) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on agent socket: %w", err)
		}
		if err != nil {
			lg.Warn("agent socket: cannot accept a connection", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(acceptRetry):
			}
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		err = dev.ServePort(conn)
		stop()
		if err != nil && ctx.Err() == nil {
			lg.Warn("agent socket: connection closed", zap.Error(err))
		}
	}
}
