// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// proxy is a backend with one defect. It passes messages on between a frontend and a good
// backend. Its hooks change some of them.
type proxy struct {
	t    testing.TB
	path string
	// request is called with each message of the frontend, and may change it. If it
	// returns false the message is not passed on.
	request func(c *proxied, m *wire.Message) bool
	// reply is the same for messages of the backend.
	reply func(c *proxied, m *wire.Message) bool
	// once ends the proxy with its first connection.
	once bool

	memory sync.Map // what a mutant keeps between connections
	die    func()   // stops serving
}

// proxied is one connection.
type proxied struct {
	*proxy
	frontend, backend *wire.Conn
	ctx               context.Context
	mu                sync.Mutex           // guards what follows
	seen              map[wire.Request]int // how often each request came
	following         sync.WaitGroup       // goroutines that follow started
	atEnd             []func()             // called when all that has ended
}

// serveMutant serves p in front of the good backend at path, and returns its own socket.
func serveMutant(t testing.TB, path string, p *proxy) string {
	t.Helper()
	p.t, p.path = t, path
	at := filepath.Join(t.TempDir(), "mutant.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	p.die = func() { l.Close() }
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			p.serve(ctx, conn)
			if p.once {
				p.die()
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return at
}

// serve serves one connection to its end.
func (p *proxy) serve(ctx context.Context, conn *net.UnixConn) {
	front, err := wire.NewConnUnix(conn, "proxy")
	if err != nil {
		p.t.Error(err)
		return
	}
	to, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		p.t.Error(err)
		return
	}
	back, err := wire.NewConnUnix(to, "proxy")
	if err != nil {
		p.t.Error(err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &proxied{proxy: p, frontend: front, backend: back, ctx: ctx, seen: make(map[wire.Request]int)}
	end := func() {
		cancel()
		front.Close()
		back.Close()
	}
	defer context.AfterFunc(ctx, end)()
	var wg sync.WaitGroup
	wg.Go(func() { defer end(); c.pass(front, back, c.onRequest) })
	wg.Go(func() { defer end(); c.pass(back, front, c.onReply) })
	wg.Wait()
	c.following.Wait()
	for _, f := range c.atEnd {
		f()
	}
}

func (c *proxied) pass(from, to *wire.Conn, hook func(*wire.Message) bool) {
	for {
		m, err := from.Recv(c.ctx)
		if err != nil {
			return
		}
		if hook(m) {
			err = to.Send(c.ctx, m.Header, m.Payload, m.FDs...)
		}
		m.Close()
		if err != nil {
			return
		}
	}
}

func (c *proxied) onRequest(m *wire.Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[wire.Request(m.Request)]++
	if c.request == nil {
		return true
	}
	return c.request(c, m)
}

func (c *proxied) onReply(m *wire.Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reply == nil {
		return true
	}
	return c.reply(c, m)
}

// inject sends a request of the proxy's own, which has no answer.
func (c *proxied) inject(req wire.Request, payload []byte, fds ...int) {
	h := wire.Header{Request: uint32(req), Flags: wire.Version}
	_ = c.backend.Send(c.ctx, h, payload, fds...)
}

// answer answers a request instead of the backend.
func (c *proxied) answer(m *wire.Message, payload []byte) {
	_ = c.frontend.Send(c.ctx, wire.Header{Request: m.Request, Flags: wire.ReplyFlags}, payload)
}

// pretend acknowledges a request that is not passed on, if the frontend asked for an
// acknowledgement.
func (c *proxied) pretend(m *wire.Message) bool {
	if m.NeedReply() {
		c.answer(m, wire.U64(0).AppendTo(nil))
	}
	return false
}

// keep duplicates a descriptor. The duplicate is closed with the connection.
func (c *proxied) keep(fd int) int {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		c.t.Error(err)
		return -1
	}
	c.own(dup)
	return dup
}

// eventfd makes an eventfd. It is closed with the connection.
func (c *proxied) eventfd() int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		c.t.Error(err)
		return -1
	}
	c.own(fd)
	return fd
}

// own makes the connection close a descriptor when it ends.
func (c *proxied) own(fd int) { c.atEnd = append(c.atEnd, func() { unix.Close(fd) }) }

// replaceFD puts another descriptor into a message.
func replaceFD(m *wire.Message, fd int) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	m.Close()
	m.FDs = []int{dup}
}

// follow calls f again and again until the connection ends.
func (c *proxied) follow(every time.Duration, f func()) {
	c.following.Go(func() {
		for c.ctx.Err() == nil {
			f()
			time.Sleep(every)
		}
	})
}
