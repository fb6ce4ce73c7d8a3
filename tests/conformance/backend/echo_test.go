// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// echo is a device with two queues that copy the readable part of each chain
// to the writable part.
type echo struct {
	vhostuser.Device
	config []byte
}

func newEcho() *echo {
	e := &echo{config: []byte("the echo device's configuration.")}
	e.Device = vhostuser.Device{
		Features:      1<<wire.FeatureRingPacked | 1<<wire.FeatureInOrder | 1<<wire.FeatureAccessPlatform,
		NumQueues:     2,
		TrackInflight: true,
		ReadConfig:    e.readConfig,
		Kick:          e.kick,
		SaveState:     func(w io.Writer) error { _, err := w.Write(e.config); return err },
		LoadState:     e.loadState,
	}
	return e
}

func (e *echo) readConfig(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(e.config)) {
		return io.ErrUnexpectedEOF
	}
	copy(p, e.config[off:])
	return nil
}

// loadState returns an error for any state but the one that the device saves.
func (e *echo) loadState(r io.Reader) error {
	state, err := io.ReadAll(r)
	if err == nil && string(state) != string(e.config) {
		err = errors.New("not a state of this device")
	}
	return err
}

func (e *echo) kick(q *vhostuser.Queue) {
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return
		}
		if err := q.Push(c, copyChain(c)); err != nil {
			return
		}
		if err := q.Notify(); err != nil {
			return
		}
	}
}

func copyChain(c *vhostuser.Chain) (written uint32) {
	var b [4096]byte
	for {
		n, err := c.ReadAt(b[:], int64(written))
		w, werr := c.WriteAt(b[:n], int64(written))
		written += uint32(w)
		if n == 0 || err != nil || werr != nil {
			return written
		}
	}
}

// serve serves a device at a socket and returns its path.
func serve(t testing.TB, dev *vhostuser.Device) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vhost.sock")
	l, err := vhostuser.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := vhostuser.NewServer(dev, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("serve: %v", err)
		}
		l.Close()
	})
	return path
}
