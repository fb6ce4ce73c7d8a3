// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// counter is a device with state that its queues do not contain.
type counter struct {
	requests atomic.Int64
}

func (c *counter) device() *vhostuser.Device {
	return &vhostuser.Device{
		NumQueues: 1,
		Kick:      func(*vhostuser.Queue) { c.requests.Add(1) },
		SaveState: func(w io.Writer) error {
			return binary.Write(w, binary.LittleEndian, c.requests.Load())
		},
		LoadState: func(r io.Reader) error {
			var n int64
			err := binary.Read(r, binary.LittleEndian, &n)
			c.requests.Store(n)
			return err
		},
	}
}

// A device with state of its own migrates: the frontend saves it at the source
// and loads it at the destination, while no queue runs.
func ExampleDevice_state() {
	var source, destination counter
	source.requests.Store(42)
	src, stopSource := connect(source.device())
	defer stopSource()
	dst, stopDestination := connect(destination.device())
	defer stopDestination()

	state, err := src.SaveState()
	if err != nil {
		log.Print(err)
	}
	fmt.Println(dst.LoadState(state), destination.requests.Load())
	// Output: <nil> 42
}

// connect serves a device and returns a frontend of it.
func connect(dev *vhostuser.Device) (f *vhosttest.Frontend, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Panic(err)
	}
	l, err := vhostuser.Listen(filepath.Join(dir, "socket"))
	if err != nil {
		log.Panic(err)
	}
	server, err := vhostuser.NewServer(dev, nil)
	if err != nil {
		log.Panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	if f, err = vhosttest.Dial(filepath.Join(dir, "socket")); err == nil {
		err = f.Realize(vhosttest.Options{})
	}
	if err != nil {
		log.Panic(err)
	}
	return f, func() {
		f.Close()
		cancel()
		<-done
		_ = l.Close()
		_ = os.RemoveAll(dir)
	}
}

// A device whose config space has one field tells the driver when it changes.
func ExampleBackend_ConfigChanged() {
	var capacity atomic.Uint64
	capacity.Store(8)
	connected := make(chan *vhostuser.Backend, 1)
	f, stop := connect(&vhostuser.Device{
		NumQueues: 1,
		Kick:      func(*vhostuser.Queue) {},
		ReadConfig: func(p []byte, off uint32) error {
			config := binary.LittleEndian.AppendUint64(nil, capacity.Load())
			if int(off)+len(p) > len(config) {
				return io.ErrUnexpectedEOF
			}
			copy(p, config[off:])
			return nil
		},
		Connected: func(b *vhostuser.Backend) { connected <- b },
	})
	defer stop()
	b := <-connected
	capacity.Store(16)
	b.ConfigChanged()

	m, err := f.Channel.Next(f.Timeout) // QEMU receives the same message
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(f.Channel.Ack(m, 0))
	m.Close()
	p, err := f.GetConfig(0, 8)
	fmt.Println(p, err)
	// Output:
	// <nil>
	// [16 0 0 0 0 0 0 0] <nil>
}
