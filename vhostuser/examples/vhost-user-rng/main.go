// SPDX-License-Identifier: Apache-2.0

// Command vhost-user-rng is the backend of a virtio entropy device
// (VIRTIO 1.2, section 5.4): its driver offers buffers, which it fills.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/program"
)

// maxRead bounds how many bytes one request gets. The device may write less
// than the buffer holds, and a buffer may hold 4 GiB.
const maxRead = 64 << 10

// newDevice returns an entropy device that passes on what source yields.
func newDevice(source io.Reader) *vhostuser.Device {
	return &vhostuser.Device{
		NumQueues: 1,
		Kick: func(q *vhostuser.Queue) {
			for {
				c, err := q.Pop()
				if c == nil || err != nil {
					break // empty, stopped, or broken and logged
				}
				n, err := fill(c, source)
				if err != nil {
					q.Fail(err)
				}
				_ = q.Push(c, n)
			}
			_ = q.Notify()
		},
	}
}

// fill answers one request and returns how many bytes it wrote.
func fill(c *vhostuser.Chain, source io.Reader) (uint32, error) {
	if c.WritableLen() == 0 {
		return 0, errors.New("driver offers a buffer that cannot be written")
	}
	n, err := io.CopyN(io.NewOffsetWriter(c, 0), source, int64(min(c.WritableLen(), maxRead)))
	if n == 0 {
		// The device must write at least one byte.
		return 0, fmt.Errorf("read entropy: %w", err)
	}
	return uint32(n), nil
}

func newProgram() program.Program {
	var filename string
	return program.Program{
		Name:         "vhost-user-rng",
		Capabilities: `{"type": "rng"}`,
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&filename, "filename", "/dev/urandom", "take the entropy from `FILE`")
		},
		Open: func() (*vhostuser.Device, func() error, error) {
			f, err := os.Open(filename)
			if err != nil {
				return nil, nil, err
			}
			return newDevice(f), f.Close, nil
		},
	}
}

func main() { newProgram().Main() }
