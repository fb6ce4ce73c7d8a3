// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a, err = NewConnFD(fds[0], "a"); err != nil {
		t.Fatal(err)
	}
	if b, err = NewConnFD(fds[1], "b"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestMessagesTravelWithTheirDescriptors(t *testing.T) {
	a, b := pair(t)
	before := openFDs(t)
	for n := range 3 {
		fds := []int{0, 1, 2}[:n]
		payload := bytes.Repeat([]byte{byte(n)}, n*1000)
		if err := a.Send(t.Context(), Header{Request: uint32(n), Flags: Version}, payload,
			fds...); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		m, err := b.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if int(m.Request) != n || len(m.FDs) != n || len(m.Payload) != n*1000 {
			t.Errorf("message %d: %v with %d descriptors", n, m.Header, len(m.FDs))
		}
		for _, fd := range m.FDs {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil ||
				flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d: flags %#x, %v", fd, flags, err)
			}
		}
		if n == 2 {
			unix.Close(m.TakeFD(0))
		}
		m.Close()
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestDescriptorsOfBadMessagesAreClosed(t *testing.T) {
	many := make([]int, 100)
	for _, tt := range []struct {
		name string
		send func(a *Conn) error
	}{
		{"too many at once", func(a *Conn) error {
			return a.Send(context.Background(), Header{Flags: Version}, nil, many...)
		}},
		{"too many in pieces", func(a *Conn) error {
			h := Header{Flags: Version, Size: 2}.AppendTo(nil)
			return errors.Join(a.SendRaw(context.Background(), h, many[:10]...),
				a.SendRaw(context.Background(), []byte{1}, many[:10]...))
		}},
		{"with an endless payload", func(a *Conn) error {
			return a.SendRaw(context.Background(), Header{Flags: Version, Size: 1 << 31}.AppendTo(nil),
				many[:3]...)
		}},
		{"with a payload that ends early", func(a *Conn) error {
			h := Header{Flags: Version, Size: 2}.AppendTo(nil)
			return errors.Join(a.SendRaw(context.Background(), h, many[:3]...), a.Close())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			before := openFDs(t)
			if err := tt.send(a); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Recv(t.Context()); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("Recv: %v", err)
			}
			if after := openFDs(t); after > before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

func TestRecvTellsAnEndFromABreak(t *testing.T) {
	for _, tt := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"between messages", nil, io.EOF},
		{"inside a header", []byte{1, 2, 3}, io.ErrUnexpectedEOF},
		{"before a payload", Header{Flags: Version, Size: 5}.AppendTo(nil), io.ErrUnexpectedEOF},
		{"inside a payload", append(Header{Flags: Version, Size: 5}.AppendTo(nil), 1),
			io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			if err := errors.Join(a.SendRaw(t.Context(), tt.raw), a.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Recv(t.Context()); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestRecvEndsWithItsContext(t *testing.T) {
	_, b := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Recv(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMessageMayArriveInPieces(t *testing.T) {
	a, b := pair(t)
	whole := append(Header{Request: 7, Flags: Version, Size: 3}.AppendTo(nil), 1, 2, 3)
	go func() {
		for _, c := range whole {
			_ = a.SendRaw(context.Background(), []byte{c})
		}
	}()
	m, err := b.Recv(t.Context())
	if err != nil || m.Request != 7 || !bytes.Equal(m.Payload, []byte{1, 2, 3}) {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestNewConnFDClosesWhatIsNoSocket(t *testing.T) {
	if _, err := NewConnFD(-1, "nothing"); err == nil {
		t.Error("accepted")
	}
}
