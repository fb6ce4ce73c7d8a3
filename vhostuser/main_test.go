// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// TestMain fails if the tests leave descriptors open or guest memory mapped.
func TestMain(m *testing.M) {
	if base := os.Getenv(pagerVariable); base != "" {
		if err := pager(base); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(vhosttest.RunTests(m))
}

// echo is a device whose queues copy the readable part of each chain to the writable
// part. It records the calls of the library.
type echo struct {
	vhostuser.Device
	mu      sync.Mutex
	events  []string
	backend *vhostuser.Backend
	errs    []error
	config  []byte
	// hold makes queue 0 keep its chains instead of completing them.
	hold bool
	held []*vhostuser.Chain
	// onKick, if set, runs before each kick is handled.
	onKick func(q *vhostuser.Queue)
	// onStop, if set, runs in QueueStopping.
	onStop func(q *vhostuser.Queue)
}

func newEcho() *echo {
	e := &echo{config: []byte("configuration of the echo device")}
	e.Device = vhostuser.Device{
		Features:  1<<wire.FeatureRingPacked | 1<<wire.FeatureInOrder,
		NumQueues: 2,
		ReadConfig: func(p []byte, off uint32) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if uint64(off)+uint64(len(p)) > uint64(len(e.config)) {
				return errors.New("read past the end of the config space")
			}
			copy(p, e.config[off:])
			return nil
		},
		WriteConfig: func(p []byte, off uint32) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			if uint64(off)+uint64(len(p)) > uint64(len(e.config)) {
				return errors.New("write past the end of the config space")
			}
			copy(e.config[off:], p)
			return nil
		},
		Kick: e.kick,
		Connected: func(b *vhostuser.Backend) {
			e.mu.Lock()
			e.backend = b
			e.mu.Unlock()
			e.record("connected")
		},
		Disconnected: func(_ *vhostuser.Backend, err error) {
			e.mu.Lock()
			e.errs = append(e.errs, err)
			e.mu.Unlock()
			e.record("disconnected")
		},
		FeaturesAcked: func(f uint64) { e.record("features %#x", f) },
		QueueStarted:  func(q *vhostuser.Queue) { e.record("queue %d started", q.Index()) },
		QueueStopping: func(q *vhostuser.Queue) {
			e.run(&e.onStop, q)
			e.record("queue %d stopping", q.Index())
		},
		Reset:         func() { e.record("reset") },
		MemoryChanged: func(m *vhostuser.Memory) { e.record("memory %d", len(m.Regions())) },
	}
	return e
}

// set sets a hook: onKick or onStop.
func (e *echo) set(hook *func(*vhostuser.Queue), f func(*vhostuser.Queue)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*hook = f
}

func (e *echo) run(hook *func(*vhostuser.Queue), q *vhostuser.Queue) {
	e.mu.Lock()
	f := *hook
	e.mu.Unlock()
	if f != nil {
		f(q)
	}
}

func (e *echo) record(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, fmt.Sprintf(format, args...))
}

func (e *echo) recorded() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.events...)
}

// forget empties the record.
func (e *echo) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = nil
}

func (e *echo) errors() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]error(nil), e.errs...)
}

func (e *echo) lastError() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.errs) == 0 {
		return nil
	}
	return e.errs[len(e.errs)-1]
}

func (e *echo) connection() *vhostuser.Backend {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.backend
}

func (e *echo) kick(q *vhostuser.Queue) {
	e.run(&e.onKick, q)
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return
		}
		e.mu.Lock()
		hold := e.hold && q.Index() == 0
		if hold {
			e.held = append(e.held, c)
		}
		e.mu.Unlock()
		if hold {
			continue
		}
		if err := echoChain(q, c); err != nil {
			return
		}
	}
}

func (e *echo) takeHeld() []*vhostuser.Chain {
	e.mu.Lock()
	defer e.mu.Unlock()
	held := e.held
	e.held = nil
	return held
}

func echoChain(q *vhostuser.Queue, c *vhostuser.Chain) error {
	p := make([]byte, min(c.ReadableLen(), c.WritableLen()))
	if _, err := c.ReadAt(p, 0); err != nil {
		return errors.Join(err, q.Push(c, 0))
	}
	n, err := c.WriteAt(p, 0)
	if err != nil {
		return errors.Join(err, q.Push(c, 0))
	}
	if err := q.Push(c, uint32(n)); err != nil {
		return err
	}
	return q.Notify()
}

// serve runs a server for dev until the test ends and returns its socket.
func serve(t testing.TB, dev *vhostuser.Device) string {
	t.Helper()
	return serveWith(t, dev, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
}

func serveWith(t testing.TB, dev *vhostuser.Device, lg *zap.Logger,
	opts ...vhostuser.Option) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := vhostuser.Listen(path)
	must(t, err)
	s, err := vhostuser.NewServer(dev, lg, opts...)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
		must(t, l.Close())
	})
	return path
}

// vm is a frontend, guest memory, and a driver for each queue.
type vm struct {
	t      testing.TB
	f      *vhosttest.Frontend
	g      *vhosttest.Guest
	queues []*vhosttest.Queue
	// features are those that the drivers accept.
	features uint64
}

const virtioFeatures = 1<<wire.FeatureVersion1 | 1<<wire.FeatureIndirectDesc

// newVM connects to the backend at path and realizes the device, as QEMU does.
func newVM(t testing.TB, path string, o vhosttest.Options, sizes ...uint64) *vm {
	t.Helper()
	if len(sizes) == 0 {
		sizes = []uint64{1 << 20, 1 << 20}
	}
	g, err := vhosttest.NewGuest(sizes...)
	must(t, err)
	t.Cleanup(g.Close)
	v := &vm{t: t, g: g, features: virtioFeatures}
	for i := range 2 {
		q, err := vhosttest.NewQueue(g, i, 8)
		must(t, err)
		t.Cleanup(q.Close)
		v.queues = append(v.queues, q)
	}
	v.connect(path, o)
	return v
}

func (v *vm) connect(path string, o vhosttest.Options) {
	v.t.Helper()
	f, err := vhosttest.Dial(path)
	must(v.t, err)
	f.AckAll = true
	v.t.Cleanup(f.Close)
	o.Queues = v.queues
	must(v.t, f.Realize(o))
	v.f = f
}

func (v *vm) start() {
	v.t.Helper()
	must(v.t, v.f.Start(v.g, v.features, v.queues...))
}

// echo sends text through queue i and checks what comes back.
func (v *vm) echo(i int, text string) {
	v.t.Helper()
	q := v.queues[i]
	in, out := v.request(text)
	_, err := q.Add(in, out)
	must(v.t, err)
	must(v.t, q.Kick.Raise())
	v.answer(i, out, text)
}

func (v *vm) request(text string) (in, out vhosttest.Buffer) {
	n := uint32(len(text))
	in = vhosttest.Buffer{Addr: v.g.Alloc(uint64(n)), Len: n}
	out = vhosttest.Buffer{Addr: v.g.Alloc(uint64(n)), Len: n, Write: true}
	v.g.Write(in.Addr, []byte(text))
	return in, out
}

func (v *vm) answer(i int, out vhosttest.Buffer, text string) {
	v.t.Helper()
	u, err := v.queues[i].Wait(10 * time.Second)
	must(v.t, err)
	if got := v.g.Read(out.Addr, uint64(out.Len)); u.Len != out.Len ||
		!bytes.Equal(got, []byte(text)) {
		v.t.Fatalf("queue %d: got %q (%d bytes), want %q", i, got, u.Len, text)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never came true: %s", what)
}
