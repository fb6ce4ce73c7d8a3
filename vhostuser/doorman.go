// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// refusalInterval is the shortest time between two log lines about connections
// that are turned away: QEMU may come again every second, or faster.
const refusalInterval = 10 * time.Second

// doorman watches the door while a frontend is served. Whoever comes meanwhile is
// turned away at once, since a frontend that waits, and its guest with it, does
// not know what for. But a connection that comes after the served one was hung up
// is kept: its turn comes as soon as that one's end has been noticed and its queues
// are stopped.
type doorman struct {
	l      *Listener
	lg     *zap.Logger
	served *wire.Conn
	cancel context.CancelFunc
	next   chan *wire.Conn // closed when the doorman has gone; holds one that came in time
}

// watch starts a doorman. l accepts by it alone until it leaves.
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
