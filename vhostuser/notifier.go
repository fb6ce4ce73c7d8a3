// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// notifyTimeout bounds the wait for the frontend to take a notification, and to
// acknowledge it.
const notifyTimeout = 5 * time.Second

// notifier sends config change notifications over the backend channel. It has
// a goroutine of its own, because the frontend may be waiting for a reply of
// the message goroutine and would not answer that one.
type notifier struct {
	lg      *zap.Logger
	pending chan struct{} // capacity 1: several requests become one

	mu   sync.Mutex
	stop func() // ends the current goroutine and waits for it; nil if none
}

func (n *notifier) init(lg *zap.Logger) {
	n.lg = lg
	n.pending = make(chan struct{}, 1)
}

func (n *notifier) request() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stop == nil {
		return // no channel, nobody to tell
	}
	select {
	case n.pending <- struct{}{}:
	default:
	}
}

// start uses conn, which it owns, as the channel, in place of an earlier one.
func (n *notifier) start(conn *wire.Conn, ack bool) {
	n.close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		n.run(ctx, conn, ack)
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop = func() {
		cancel()
		<-done
	}
}

func (n *notifier) close() {
	n.mu.Lock()
	stop := n.stop
	n.stop = nil
	n.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (n *notifier) run(ctx context.Context, conn *wire.Conn, ack bool) {
	// owed counts the acknowledgements that the frontend still has to send,
	// those of requests whose wait timed out included.
	owed := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.pending:
		}
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
			defer cancel()
			return notify(ctx, conn, ack, &owed)
		}()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.lg.Warn("config change was not acknowledged", zap.Error(err))
		}
	}
}

// notify sends one notification and waits for all acknowledgements owed.
func notify(ctx context.Context, conn *wire.Conn, ack bool, owed *int) error {
	h := wire.Header{Request: uint32(wire.BackendConfigChange), Flags: wire.Version}
	if ack {
		h.Flags |= wire.FlagNeedReply
	}
	if err := conn.Send(ctx, h, nil); err != nil {
		return err
	}
	if ack {
		*owed++
	}
	for ; *owed > 0; *owed-- {
		m, err := conn.Recv(ctx)
		if err != nil {
			return err
		}
		v, err := wire.DecodeU64(m.Payload)
		m.Close()
		switch {
		case m.Request != h.Request || m.Flags&wire.FlagReply == 0:
			return fmt.Errorf("receive acknowledgement: got %v", m.Header)
		case err != nil:
			return err
		case v != 0 && *owed == 1:
			*owed = 0
			return fmt.Errorf("frontend refused %v: %v", wire.BackendConfigChange, v)
		}
	}
	return nil
}
