// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// relay passes messages on between frontends and a backend. On each connection it
// falls silent after a number of messages of the frontend: it then drops what the
// frontend sends.
type relay struct {
	socket string
	listen net.Listener
	hidden atomic.Uint64 // protocol features to take out of the backend's offer
	ending func()        // called before it passes on a POSTCOPY_END, if not nil
	silent atomic.Int64  // how many messages of a frontend it passes on per connection
	fell   atomic.Int64  // how often it fell silent
	heard  atomic.Int64  // messages of frontends that it has passed on
	muted  context.Context
	unmute func()
	done   sync.WaitGroup
}

// passAll is more messages than any frontend sends.
const passAll = 1 << 30

// startRelay starts a relay to the backend at a socket. It passes on the first
// messages of each connection, and ends with the test.
func startRelay(t testing.TB, backend string, passes int) *relay {
	t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-relay-") // short, for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &relay{socket: filepath.Join(dir, "sock")}
	r.silent.Store(int64(passes))
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	r.listen = l
	ctx, cancel := context.WithCancel(context.Background())
	r.muted, r.unmute = context.WithCancel(ctx)
	r.done.Go(func() {
		for {
			front, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			r.done.Go(func() { r.serve(ctx, front.(*net.UnixConn), backend) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		r.done.Wait()
	})
	return r
}

// speak makes the relay pass on everything on new connections, and closes the
// connections on which it has fallen silent.
func (r *relay) speak() {
	r.silent.Store(passAll)
	r.unmute()
}

// serve serves a connection until one side ends it.
func (r *relay) serve(ctx context.Context, accepted *net.UnixConn, backend string) {
	front, err := wire.NewConnUnix(accepted, "front")
	if err != nil {
		return
	}
	defer front.Close()
	dialed, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: backend, Net: "unix"})
	if err != nil {
		return
	}
	back, err := wire.NewConnUnix(dialed, "back")
	if err != nil {
		return
	}
	defer back.Close()
	var answers sync.WaitGroup
	answers.Go(func() {
		for r.pass(ctx, back, front, r.hidden.Load()) == nil {
		}
	})
	for n := int64(0); ; n++ {
		if n == r.silent.Load() {
			r.fell.Add(1)
			for err == nil { // until the frontend disconnects, or speak is called
				var m *wire.Message
				if m, err = front.Recv(r.muted); err == nil {
					m.Close()
				}
			}
			break
		}
		if r.pass(ctx, front, back, 0) != nil {
			break
		}
		r.heard.Add(1)
	}
	back.Close()
	answers.Wait()
}

// pass passes one message on. It takes the hidden bits out of offered protocol
// features.
func (r *relay) pass(ctx context.Context, from, to *wire.Conn, hidden uint64) error {
	m, err := from.Recv(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	if wire.Request(m.Request) == wire.GetProtocolFeatures && len(m.Payload) == 8 {
		offered := binary.LittleEndian.Uint64(m.Payload)
		binary.LittleEndian.PutUint64(m.Payload, offered&^hidden)
	}
	if wire.Request(m.Request) == wire.PostcopyEnd && m.Flags&wire.FlagReply == 0 && r.ending != nil {
		r.ending()
	}
	return to.Send(ctx, m.Header, m.Payload, m.FDs...)
}
