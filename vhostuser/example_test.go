// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// An entropy device fills the buffers of its driver with random bytes.
func Example() {
	entropy := &vhostuser.Device{
		NumQueues: 1,
		Kick: func(q *vhostuser.Queue) {
			for {
				c, err := q.Pop()
				if c == nil || err != nil {
					break // empty, stopped, or broken and logged
				}
				p := make([]byte, min(c.WritableLen(), 4096))
				_, _ = rand.Read(p) // never fails
				n, _ := c.WriteAt(p, 0)
				_ = q.Push(c, uint32(n))
			}
			_ = q.Notify()
		},
	}

	dir, err := os.MkdirTemp("", "entropy")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "socket")
	l, err := vhostuser.Listen(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	server, err := vhostuser.NewServer(entropy, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()

	// In real use QEMU connects now. Here readEntropy does.
	n, err := readEntropy(path, 64)
	fmt.Println(n, err)

	cancel()
	fmt.Println(<-done)
	// Output:
	// 64 <nil>
	// context canceled
}

// readEntropy plays QEMU and the driver, and returns how many bytes it got.
func readEntropy(path string, n uint32) (uint32, error) {
	guest, err := vhosttest.NewGuest(1 << 20)
	if err != nil {
		return 0, err
	}
	defer guest.Close()
	q, err := vhosttest.NewQueue(guest, 0, 16)
	if err != nil {
		return 0, err
	}
	defer q.Close()
	f, err := vhosttest.Dial(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := f.Realize(vhosttest.Options{Queues: []*vhosttest.Queue{q}}); err != nil {
		return 0, err
	}
	if err := f.Start(guest, virtioFeatures, q); err != nil {
		return 0, err
	}
	if _, err := q.Add(vhosttest.Buffer{Addr: guest.Alloc(uint64(n)), Len: n,
		Write: true}); err != nil {
		return 0, err
	}
	if err := q.Kick.Raise(); err != nil {
		return 0, err
	}
	used, err := q.Wait(10 * time.Second)
	if err != nil {
		return 0, err
	}
	return used.Len, f.Stop(q)
}
