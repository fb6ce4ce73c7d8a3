// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// mustFrontend returns the frontend of a backend that answers each request with what
// answer returns. The backend disconnects when that is nil.
func mustFrontend(t *testing.T, answer func(m *wire.Message) []byte) *Frontend {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*wire.Conn
	for i, fd := range fds {
		if ends[i], err = wire.NewConnFD(fd, "pair"); err != nil {
			t.Fatal(err)
		}
	}
	f, back := New(ends[0]), ends[1]
	f.Timeout = time.Second
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer back.Close()
		for {
			m, err := back.Recv(context.Background())
			if err != nil {
				return
			}
			defer m.Close() // the descriptors stay open until the end
			payload := answer(m)
			if payload == nil {
				return
			}
			h := wire.Header{Request: m.Request, Flags: wire.ReplyFlags}
			if back.Send(context.Background(), h, payload) != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		f.Close()
		<-done
	})
	return f
}

// The frontend does not wait forever for a backend that neither writes nor reads its
// state.
func TestStateThatDoesNotMove(t *testing.T) {
	for name, move := range map[string]func(*Frontend) error{
		"save": func(f *Frontend) error { _, err := f.SaveState(); return err },
		"load": func(f *Frontend) error { return f.LoadState(make([]byte, 1<<20)) }, // fills a pipe
	} {
		t.Run(name, func(t *testing.T) {
			f := mustFrontend(t,
				func(*wire.Message) []byte { return wire.U64(wire.StateNoFD).AppendTo(nil) })
			ended := make(chan error, 1)
			go func() { ended <- move(f) }()
			select {
			case err := <-ended:
				if !errors.Is(err, ErrTimeout) {
					t.Errorf("got %v, want ErrTimeout", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("the frontend waits for ever")
			}
		})
	}
}

func TestMigrationThatDoesNotStartLeavesNothing(t *testing.T) {
	for name, answer := range map[string]func(m *wire.Message) []byte{
		"the log is refused": func(*wire.Message) []byte { return wire.U64(1).AppendTo(nil) },
		"the backend dies after the log": func(m *wire.Message) []byte {
			if m.Request == uint32(wire.SetLogBase) {
				return wire.U64(0).AppendTo(nil)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := NewGuest(1 << 20)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			f := mustFrontend(t, func(m *wire.Message) []byte {
				p := answer(m)
				m.Close()
				return p
			})
			before := descriptors(t)
			if _, err := f.StartMigration(g); err == nil {
				t.Fatal("the migration started")
			}
			if after := descriptors(t); after > before {
				t.Errorf("there are %d descriptors, and were %d", after, before)
			}
			if g.dirty != nil || f.logAll {
				t.Errorf("the guest's writes are recorded: %v; LOG_ALL is set: %v", g.dirty != nil, f.logAll)
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
