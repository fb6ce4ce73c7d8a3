// SPDX-License-Identifier: Apache-2.0

package vhosttest_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// A client uses a vhost-user device without a virtual machine.
func ExampleFrontend() {
	path, stop := greeter()
	defer stop()

	guest, err := vhosttest.NewGuest(1 << 20) // the memory that is shared with the device
	if err != nil {
		log.Panic(err)
	}
	defer guest.Close()
	queue, err := vhosttest.NewQueue(guest, 0, 16)
	if err != nil {
		log.Panic(err)
	}
	defer queue.Close()
	f, err := vhosttest.Dial(path)
	if err != nil {
		log.Panic(err)
	}
	defer f.Close()
	if err := f.Realize(vhosttest.Options{Queues: []*vhosttest.Queue{queue}}); err != nil {
		log.Panic(err)
	}
	if err := f.Start(guest, 1<<wire.FeatureVersion1, queue); err != nil {
		log.Panic(err)
	}

	buffer := vhosttest.Buffer{Addr: guest.Alloc(64), Len: 64, Write: true}
	if _, err := queue.Add(buffer); err != nil {
		log.Panic(err)
	}
	if err := queue.Kick.Raise(); err != nil {
		log.Panic(err)
	}
	used, err := queue.Wait(f.Timeout)
	if err != nil {
		log.Panic(err)
	}
	fmt.Printf("%s\n", guest.Read(buffer.Addr, uint64(used.Len)))
	fmt.Println(f.Stop(queue))
	// Output:
	// hello, driver
	// <nil>
}

// greeter serves a device that greets its driver.
func greeter() (path string, stop func()) {
	dir, err := os.MkdirTemp("", "greeter")
	if err != nil {
		log.Panic(err)
	}
	path = filepath.Join(dir, "socket")
	l, err := vhostuser.Listen(path)
	if err != nil {
		log.Panic(err)
	}
	server, err := vhostuser.NewServer(&vhostuser.Device{NumQueues: 1, Kick: greet}, nil)
	if err != nil {
		log.Panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	return path, func() {
		cancel()
		<-done
		_ = l.Close()
		_ = os.RemoveAll(dir)
	}
}

func greet(q *vhostuser.Queue) {
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return // empty, stopped, or broken and logged
		}
		n, _ := c.WriteAt([]byte("hello, driver"), 0)
		_ = q.Push(c, uint32(n))
		_ = q.Notify()
	}
}
