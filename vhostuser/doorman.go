// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// refusalInterval is the least time between two log lines about refused connections,
// because QEMU may reconnect every second or more often.
const refusalInterval = 10 * time.Second

// doorman accepts connections while another frontend is served. It closes each at once,
// because a frontend that had to wait would stop its guest without a reason that it can
// see. But if the served frontend has hung up already, it keeps the new connection. That
// is served as soon as the queues of the old connection are stopped.
type doorman struct {
	l      *Listener
	lg     *zap.Logger
	served *wire.Conn
	cancel context.CancelFunc
	next   chan *wire.Conn // closed when the doorman has gone; holds one that came in time
}

// watch starts a doorman. Until leave returns, only the doorman may accept on l.
func watch(ctx context.Context, l *Listener, served *wire.Conn, lg *zap.Logger) *doorman {
	d := &doorman{l: l, lg: lg, served: served, next: make(chan *wire.Conn, 1)}
	ctx, d.cancel = context.WithCancel(ctx)
	go d.run(ctx)
	return d
}

// leave ends the watch. It returns the connection that is to be served next, or
// nil if none has come.
func (d *doorman) leave() *wire.Conn {
	d.cancel()
	return <-d.next
}

func (d *doorman) run(ctx context.Context) {
	defer close(d.next)
	pid := d.served.PeerPID() // while there is somebody
	var last time.Time
	for n := 1; ; n++ {
		conn, err := d.l.accept(ctx)
		if err != nil {
			return // Serve meets the error as well, if it is one
		}
		if d.served.HungUp() {
			d.next <- conn
			return
		}
		if now := time.Now(); last.IsZero() || now.Sub(last) >= refusalInterval {
			d.lg.Warn("connection refused: another frontend is being served",
				zap.Int32("pid", conn.PeerPID()), zap.Int32("served_pid", pid), zap.Int("refused", n))
			last = now
		}
		_ = conn.Close()
	}
}
