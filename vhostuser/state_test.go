// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// stateful returns an echo device with internal state, and a function that returns the
// state.
func stateful(state []byte) (*echo, func() []byte) {
	e := newEcho()
	e.Device.SaveState = func(w io.Writer) error {
		e.mu.Lock()
		p := state
		e.mu.Unlock()
		_, err := w.Write(p)
		return err
	}
	e.Device.LoadState = func(r io.Reader) error {
		p, err := io.ReadAll(r)
		if err == nil && string(p) == "bad" {
			err = errors.New("state is bad")
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		state = p
		return err
	}
	return e, func() []byte {
		e.mu.Lock()
		defer e.mu.Unlock()
		return state
	}
}

func TestStateMovesToAnotherBackend(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state []byte
	}{
		{"of no bytes", nil},
		{"of a few bytes", []byte("state")},
		{"of more than a pipe holds", bytes.Repeat([]byte("0123456789abcdef"), 1<<16)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source, _ := stateful(tt.state)
			src := newVM(t, serve(t, &source.Device), vhosttest.Options{})
			src.start()
			must(t, src.f.Stop(src.queues...))
			moved, err := src.f.SaveState()
			must(t, err)
			if !bytes.Equal(moved, tt.state) {
				t.Fatalf("saved %d bytes, want %d", len(moved), len(tt.state))
			}
			dest, loaded := stateful([]byte("old"))
			dst := newVM(t, serve(t, &dest.Device), vhosttest.Options{})
			must(t, dst.f.LoadState(moved))
			if !bytes.Equal(loaded(), tt.state) {
				t.Errorf("loaded %d bytes, want %d", len(loaded()), len(tt.state))
			}
			dst.start()
			dst.echo(0, "at the destination")
		})
	}
}

func TestStateIsRefusedInWords(t *testing.T) {
	pipe := func(t *testing.T) (r, w *os.File) {
		r, w, err := os.Pipe()
		must(t, err)
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	var refused *vhosttest.Refused
	t.Run("while a queue runs", func(t *testing.T) {
		e, _ := stateful(nil)
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		v.start()
		if _, err := v.f.SaveState(); !errors.As(err, &refused) {
			t.Errorf("save: %v", err)
		}
		if err := v.f.LoadState([]byte("x")); !errors.As(err, &refused) {
			t.Errorf("load: %v", err)
		}
		v.echo(0, "goes on")
	})
	t.Run("in a phase or direction of the future", func(t *testing.T) {
		e, _ := stateful(nil)
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		r, _ := pipe(t)
		for _, s := range []wire.DeviceState{{Direction: wire.Save, Phase: 1}, {Direction: 2}} {
			m, err := v.f.Ask(wire.SetDeviceStateFD, s.AppendTo(nil), int(r.Fd()))
			must(t, err)
			if status, err := wire.DecodeU64(m.Payload); err != nil || status != 0x101 {
				t.Errorf("%v: status %v, %v", s, status, err)
			}
			m.Close()
		}
	})
	t.Run("without the feature, a descriptor, or a transfer", func(t *testing.T) {
		e := newEcho()
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		if v.f.Protocol.Has(wire.ProtocolDeviceState) {
			t.Error("a device without state offers to move it")
		}
		r, _ := pipe(t)
		if err := v.f.SetStateFD(wire.Save, r); !errors.As(err, &refused) {
			t.Errorf("without the feature: %v", err)
		}
		e, _ = stateful(nil)
		v = newVM(t, serve(t, &e.Device), vhosttest.Options{})
		if err := v.f.CheckState(); !errors.As(err, &refused) {
			t.Errorf("check without a transfer: %v", err)
		}
		m, err := v.f.Ask(wire.SetDeviceStateFD, wire.DeviceState{}.AppendTo(nil))
		must(t, err)
		if status, err := wire.DecodeU64(m.Payload); err != nil || status != 0x101 {
			t.Errorf("without a descriptor: %v, %v", status, err)
		}
		m.Close()
	})
	t.Run("which the device cannot use", func(t *testing.T) {
		e, _ := stateful(nil)
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		if err := v.f.LoadState([]byte("bad")); !errors.As(err, &refused) ||
			refused.Request != wire.CheckDeviceState {
			t.Errorf("a bad state: %v", err)
		}
		must(t, v.f.LoadState([]byte("good")))
	})
	t.Run("of which the device reads a part", func(t *testing.T) {
		e, _ := stateful(nil)
		e.Device.LoadState = func(r io.Reader) error {
			_, err := io.ReadFull(r, make([]byte, 2))
			return err
		}
		v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
		if err := v.f.LoadState([]byte("four")); !errors.As(err, &refused) {
			t.Errorf("four bytes: %v", err)
		}
		must(t, v.f.LoadState([]byte("ok")))
		if err := v.f.LoadState([]byte("1")); !errors.As(err, &refused) {
			t.Errorf("one byte: %v", err)
		}
	})
}

func TestFrontendMayLoseInterestInAState(t *testing.T) {
	large := make([]byte, 1<<20) // more than a pipe takes
	for _, tt := range []struct {
		name string
		then func(t *testing.T, v *vm, r, w *os.File)
	}{
		{"by closing its end", func(t *testing.T, v *vm, r, w *os.File) {
			must(t, r.Close())
			if err := v.f.CheckState(); err == nil {
				t.Error("a transfer that broke off succeeded")
			}
		}},
		{"by starting the device", func(t *testing.T, v *vm, r, w *os.File) {
			v.start()
			v.echo(0, "runs")
			if err := v.f.CheckState(); err == nil {
				t.Error("a transfer that was cancelled succeeded")
			}
		}},
		{"by another transfer", func(t *testing.T, v *vm, r, w *os.File) {
			p, err := v.f.SaveState()
			must(t, err)
			if len(p) != len(large) {
				t.Errorf("saved %d bytes", len(p))
			}
		}},
		{"by leaving", func(t *testing.T, v *vm, r, w *os.File) { v.f.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := stateful(large)
			ended := make(chan error, 3)
			save := e.Device.SaveState
			e.Device.SaveState = func(w io.Writer) error {
				err := save(w)
				ended <- err
				return err
			}
			v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
			r, w, err := os.Pipe()
			must(t, err)
			defer r.Close()
			must(t, v.f.SetStateFD(wire.Save, w))
			must(t, w.Close())
			tt.then(t, v, r, w)
			if err := <-ended; err == nil {
				t.Error("the device wrote all of its state to nobody")
			}
		})
	}
}

func TestFrontendThatLeavesWhileItsCheckIsPending(t *testing.T) {
	e, _ := stateful(nil)
	release := make(chan struct{})
	e.Device.LoadState = func(r io.Reader) error {
		<-release // it does not read r
		return nil
	}
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	r, w, err := os.Pipe()
	must(t, err)
	must(t, v.f.SetStateFD(wire.Load, r))
	must(t, errors.Join(r.Close(), w.Close()))
	must(t, v.f.Send(wire.CheckDeviceState, 0, nil))
	v.f.Close()
	eventually(t, "disconnected", func() bool { return slices.Contains(e.recorded(), "disconnected") })
	close(release)
}
