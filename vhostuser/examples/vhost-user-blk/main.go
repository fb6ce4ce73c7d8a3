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

func newProgram() program.Program {
	var path string
	var readOnly bool
	return program.Program{
		Name:         "vhost-user-blk",
		Capabilities: `{"type": "block", "features": ["read-only", "blk-file"]}`,
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&path, "blk-file", "", "file or block device with the disk's content (`PATH`)")
			fs.BoolVar(&readOnly, "read-only", false, "let the guest read only")
		},
		Open: func() (*vhostuser.Device, func() error, error) {
			d, err := openDisk(path, readOnly)
			if err != nil {
				return nil, nil, err
			}
			return d.device(), d.file.Close, nil
		},
	}
}

func openDisk(path string, readOnly bool) (*disk, error) {
	if path == "" {
		return nil, errors.New("give --blk-file")
	}
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd) // of a block device too
	if err == nil && size < blockSize {
		err = fmt.Errorf("%s has only %d bytes", path, size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	size -= size % blockSize
	return &disk{file: f, sectors: uint64(size / sectorSize), readOnly: readOnly}, nil
}

func main() { newProgram().Main() }
