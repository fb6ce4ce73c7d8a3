// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// acceptRetry is how long to wait when a connection cannot be accepted, as when
// the process has no free descriptors.
const acceptRetry = 100 * time.Millisecond

// servePort reads the refusals that the guest writes to its serial port. QEMU
// connects the port to l; servePort handles one connection at a time. It closes l,
// and returns nil at the end of ctx. It never buffers more than one message of the
// guest. An error of a connection is logged; the process goes on.
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
		err = readRefusals(conn, dev)
		stop()
		conn.Close()
		if err != nil && ctx.Err() == nil {
			lg.Warn("agent socket: connection closed", zap.Error(err))
		}
	}
}

// readRefusals passes each HELLO from r to dev, until r ends, which is no error. A
// malformed HELLO is an error, since it is not known where the next one begins.
func readRefusals(r io.Reader, dev *device.Device) error {
	var p [protocol.HeaderSize + protocol.HelloSize]byte
	for {
		if _, err := io.ReadFull(r, p[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read hello: %w", err)
		}
		header, err := protocol.DecodeHeader(p[:])
		if err != nil {
			return err
		}
		body, err := protocol.DecodeHello(p[protocol.HeaderSize:])
		if err != nil {
			return err
		}
		if err := dev.Refuse(header, body); err != nil {
			return err
		}
	}
}
