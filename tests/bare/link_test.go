// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// link is the network between the two ends of a migration. It can replace a string
// in the stream of either direction, lose what the source sends, and fail.
type link struct {
	near  string    // the source connects to this socket
	far   string    // the destination listens on this one
	there [2]string // toward the destination: a string, and another of its length instead
	back  [2]string // the same toward the source
	loses atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

// startLink starts a network that ends with the test.
func startLink(t testing.TB) *link {
	t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-link-") // short, for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	l := &link{near: filepath.Join(dir, "near"), far: filepath.Join(dir, "far")}
	listen, err := net.Listen("unix", l.near)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			near, err := listen.Accept()
			if err != nil {
				return // the test is over
			}
			l.mu.Lock()
			path, there, back := l.far, l.there, l.back
			l.mu.Unlock()
			far, err := net.Dial("unix", path)
			if err != nil {
				near.Close()
				continue
			}
			l.mu.Lock()
			l.conns = append(l.conns, near, far)
			l.mu.Unlock()
			done.Go(func() { carry(ctx, near, far, there, &l.loses) })
			done.Go(func() { carry(ctx, far, near, back, new(atomic.Bool)) })
		}
	})
	t.Cleanup(func() {
		cancel()
		listen.Close()
		l.cut()
		done.Wait()
		os.RemoveAll(dir)
	})
	return l
}

// set changes what holds for connections from now on.
func (l *link) set(change func(l *link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

// cut ends all connections.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// carry copies one direction of a connection until either side closes it. It finds
// the string to replace only within one read. That is enough, because QEMU sends the
// message that contains it on its own. While loses is set what it reads is lost.
func carry(ctx context.Context, from, to net.Conn, change [2]string, loses *atomic.Bool) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 256<<10)
	for ctx.Err() == nil {
		n, err := from.Read(buf)
		piece := buf[:n]
		if change[0] != "" {
			piece = bytes.ReplaceAll(piece, []byte(change[0]), []byte(change[1]))
		}
		if loses.Load() {
			piece = nil
		}
		if _, werr := to.Write(piece); err != nil || werr != nil {
			return
		}
	}
}
