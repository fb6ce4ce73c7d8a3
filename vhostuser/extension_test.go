// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const (
	extBit  = 50
	extAsk  = wire.Request(0x7001)
	extTell = wire.Request(0x7002)
)

// extended is an echo device with two private requests. One returns its payload, the
// content of its files, and three descriptors. The other fails if its payload says so.
func extended(t *testing.T) *echo {
	e := newEcho()
	read := func(files []*os.File) (all []byte, err error) {
		for _, f := range files {
			p, err := io.ReadAll(f)
			if err := errors.Join(err, f.Close()); err != nil {
				return nil, err
			}
			all = append(all, p...)
		}
		return all, nil
	}
	var fds []int
	for range 3 {
		ev, err := vhosttest.NewEvent()
		must(t, err)
		t.Cleanup(ev.Close)
		fds = append(fds, ev.FD)
	}
	e.Device.Extensions = []vhostuser.Extension{
		{ProtocolFeature: extBit, Request: uint32(extAsk), Replies: true,
			Handle: func(p []byte, files []*os.File) ([]byte, []int, error) {
				more, err := read(files)
				switch {
				case err != nil:
					return nil, nil, err
				case string(p) == "fail":
					return []byte("not sent"), fds, errors.New("told to fail")
				case string(p) == "long":
					return make([]byte, wire.MaxPayload+1), nil, nil
				}
				return append(append([]byte("re: "), p...), more...), fds, nil
			}},
		{ProtocolFeature: extBit, Request: uint32(extTell),
			Handle: func(p []byte, files []*os.File) ([]byte, []int, error) {
				if _, err := read(files); err != nil {
					return nil, nil, err
				}
				if string(p) == "fail" {
					return nil, nil, errors.New("told to fail")
				}
				return []byte("ignored"), nil, nil
			}},
	}
	return e
}

func TestPrivateRequests(t *testing.T) {
	e := extended(t)
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{Extra: 1 << extBit})
	if !e.connection().ProtocolFeature(extBit) {
		t.Error("the private feature was not negotiated")
	}
	r, w, err := os.Pipe()
	must(t, err)
	_, err = w.WriteString(" and a file")
	must(t, err)
	must(t, w.Close())
	m, err := v.f.Ask(extAsk, []byte("question"), int(r.Fd()))
	must(t, err)
	must(t, r.Close())
	if string(m.Payload) != "re: question and a file" || len(m.FDs) != 3 {
		t.Errorf("got %q with %d descriptors", m.Payload, len(m.FDs))
	}
	// The descriptors are the device's eventfds.
	if _, err := unix.Write(m.FDs[0], []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Error(err)
	}
	m.Close()

	for _, p := range []string{"fail", "long"} {
		m, err := v.f.Ask(extAsk, []byte(p))
		must(t, err)
		if len(m.Payload) != 0 || len(m.FDs) != 0 {
			t.Errorf("%s: got %q with %d descriptors", p, m.Payload, len(m.FDs))
		}
		m.Close()
	}

	must(t, v.f.Confirm(extTell, []byte("fine")))
	must(t, v.f.Send(extTell, 0, []byte("fine")))
	var refused *vhosttest.Refused
	if err := v.f.Confirm(extTell, []byte("fail")); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	must(t, v.f.Barrier())
}

func TestPrivateRequestsNeedTheirFeature(t *testing.T) {
	e := extended(t)
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	var refused *vhosttest.Refused
	if err := v.f.Confirm(extTell, nil); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	// The answer to such a request cannot carry an error: the connection ends.
	if _, err := v.f.Ask(extAsk, nil); err == nil {
		t.Error("the question was answered")
	}
}
