// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// patience is how long a test waits before it is taken to hang. It is no requirement.
const patience = 20 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start serves a device that reads from source, and returns a frontend and a guest of
// it.
func start(t *testing.T, source io.Reader) (*vhosttest.Guest, *vhosttest.Frontend,
	*vhosttest.Queue) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := vhostuser.Open(path, -1)
	must(t, err)
	server, err := vhostuser.NewServer(newDevice(source), zaptest.NewLogger(t))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		<-done
		must(t, l.Close())
	})
	g, err := vhosttest.NewGuest(1 << 20)
	must(t, err)
	t.Cleanup(g.Close)
	q, err := vhosttest.NewQueue(g, 0, 16)
	must(t, err)
	t.Cleanup(q.Close)
	f, err := vhosttest.Dial(path)
	must(t, err)
	t.Cleanup(f.Close)
	must(t, f.Realize(vhosttest.Options{Queues: []*vhosttest.Queue{q}}))
	must(t, f.Start(g, 1<<32, q))
	return g, f, q
}

// chaos returns an endless stream of random bytes that is the same each time.
func chaos() io.Reader { return rand.NewChaCha8([32]byte{1}) }

func TestBuffersAreFilledInOrder(t *testing.T) {
	g, _, q := start(t, chaos())
	want := chaos()
	for _, sizes := range [][]uint32{{64}, {1}, {7, 4096, 5}, {maxRead}, {maxRead + 4096}} {
		var bufs []vhosttest.Buffer
		var room uint32
		for _, n := range sizes {
			bufs = append(bufs, vhosttest.Buffer{Addr: g.Alloc(uint64(n)), Len: n, Write: true})
			room += n
		}
		_, err := q.Add(bufs...)
		must(t, err)
		must(t, q.Kick.Raise())
		u, err := q.Wait(patience)
		must(t, err)
		if u.Len != min(room, maxRead) {
			t.Errorf("%v: got %d bytes", sizes, u.Len)
		}
		var got []byte
		for _, b := range bufs {
			got = append(got, g.Read(b.Addr, uint64(b.Len))...)
		}
		expected := make([]byte, u.Len)
		_, err = io.ReadFull(want, expected)
		must(t, err)
		if !bytes.Equal(got[:u.Len], expected) || bytes.ContainsFunc(got[u.Len:],
			func(r rune) bool { return r != 0 }) {
			t.Errorf("%v: the driver got other bytes", sizes)
		}
	}
}

func TestWhatCannotBeAnsweredBreaksTheQueue(t *testing.T) {
	for name, tt := range map[string]struct {
		source io.Reader
		write  bool
	}{
		"a buffer that cannot be written": {chaos(), false},
		"a source that has ended":         {strings.NewReader(""), true},
	} {
		t.Run(name, func(t *testing.T) {
			g, f, q := start(t, tt.source)
			broken, err := vhosttest.NewEvent()
			must(t, err)
			defer broken.Close()
			must(t, f.SetErr(q, broken))
			must(t, f.Barrier())
			_, err = q.Add(vhosttest.Buffer{Addr: g.Alloc(8), Len: 8, Write: tt.write})
			must(t, err)
			must(t, q.Kick.Raise())
			must(t, broken.Wait(patience))
			must(t, f.Stop(q))
		})
	}
}

func TestCommandLines(t *testing.T) {
	var out strings.Builder
	must(t, newProgram().Run(t.Context(), []string{"--print-capabilities"}, &out, nil))
	if !strings.Contains(out.String(), `"rng"`) {
		t.Errorf("printed %q", out.String())
	}
	socket := "--socket-path=" + filepath.Join(t.TempDir(), "s")
	for name, args := range map[string][]string{
		"no socket":            {},
		"a source that is not": {socket, "--filename=/no/such/file"},
		"a stray argument":     {socket, "x"},
		"an unknown option":    {socket, "--entropy=much"},
	} {
		if err := newProgram().Run(t.Context(), args, nil, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as SIGTERM does
	must(t, newProgram().Run(ctx, []string{socket}, nil, zaptest.NewLogger(t)))
}
