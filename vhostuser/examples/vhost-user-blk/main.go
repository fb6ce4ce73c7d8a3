// SPDX-License-Identifier: Apache-2.0

// Command vhost-user-blk is the backend of a virtio block device over a file.
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

type options struct {
	file     string
	readOnly bool
	queues   int
}

func newProgram() program.Program {
	var o options
	return program.Program{
		Name:         "vhost-user-blk",
		Capabilities: `{"type": "block", "features": ["read-only", "blk-file"]}`,
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&o.file, "blk-file", "", "file or block device with the disk's content (`PATH`)")
			fs.BoolVar(&o.readOnly, "read-only", false, "let the guest read only")
			fs.IntVar(&o.queues, "num-queues", 4, "how many queues the device has")
		},
		Open: func() (*vhostuser.Device, func() error, error) {
			d, err := openDisk(o)
			if err != nil {
				return nil, nil, err
			}
			return d.device(), d.file.Close, nil
		},
	}
}

func openDisk(o options) (*disk, error) {
	if o.file == "" {
		return nil, errors.New("give --blk-file")
	}
	mode := os.O_RDWR
	if o.readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(o.file, mode, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd) // of a block device too
	if err == nil && size < blockSize {
		err = fmt.Errorf("%s has only %d bytes", o.file, size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	size -= size % blockSize
	return &disk{file: f, sectors: uint64(size / sectorSize), queues: o.queues, readOnly: o.readOnly}, nil
}

func main() { newProgram().Main() }
