// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// The block device of VIRTIO 1.2, section 5.2.
const (
	featureSegMax   = 1 << 2
	featureReadOnly = 1 << 5
	featureBlkSize  = 1 << 6
	featureFlush    = 1 << 9
	featureMQ       = 1 << 12

	typeIn    = 0
	typeOut   = 1
	typeFlush = 4
	typeGetID = 8

	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2

	numQueues  = 4
	sectorSize = 512 // of every number of sectors
	blockSize  = 4096
	maxSegs    = 126 // of data in a request
	idSize     = 20
	configSize = 60 // up to the limits of features that are not offered
)

// header begins every request.
type header struct {
	Type, _ uint32
	Sector  uint64
}

var errUnsupported = errors.New("request is not supported")

// storage holds a disk's content: an *os.File, or what a test uses instead.
type storage interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

// disk is a block device whose content is a file.
type disk struct {
	file     storage
	sectors  uint64
	readOnly bool
	serving  [numQueues]sync.Mutex // held while a queue's requests are under way
}

func (d *disk) device() *vhostuser.Device {
	features := uint64(featureSegMax | featureBlkSize | featureFlush | featureMQ |
		1<<wire.FeatureRingPacked)
	if d.readOnly {
		features |= featureReadOnly
	}
	return &vhostuser.Device{
		Features:  features,
		NumQueues: numQueues,
		// A disk's requests may be carried out twice, if this process dies meanwhile.
		TrackInflight: true,
		ReadConfig: func(p []byte, off uint32) error {
			_, err := bytes.NewReader(d.config()).ReadAt(p, int64(off))
			return err
		},
		Kick: d.kick,
		// Wait until all requests are done, however long that takes: after a
		// migration another backend uses the file, perhaps on another host.
		QueueStopping: func(q *vhostuser.Queue) {
			d.serving[q.Index()].Lock()
			defer d.serving[q.Index()].Unlock()
		},
	}
}

// config returns the config space, struct virtio_blk_config. Fields of features
// that are never offered are zero.
func (d *disk) config() []byte {
	b := make([]byte, configSize)
	le := binary.LittleEndian
	le.PutUint64(b[0:], d.sectors)
	le.PutUint32(b[12:], maxSegs)
	le.PutUint32(b[20:], blockSize)
	le.PutUint16(b[34:], numQueues)
	return b
}

// kick serves all requests that are available, side by side. It returns when
// they are answered.
func (d *disk) kick(q *vhostuser.Queue) {
	d.serving[q.Index()].Lock()
	defer d.serving[q.Index()].Unlock()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	for {
		c, err := q.Pop()
		if c == nil || err != nil {
			return // empty, stopped, or broken and logged
		}
		underWay.Go(func() { d.answer(q, c) })
	}
}

// answer carries a request out, writes the status to its last byte, and pushes it. If the
// queue was stopped meanwhile both fail, which does no harm.
func (d *disk) answer(q *vhostuser.Queue, c *vhostuser.Chain) {
	if c.WritableLen() == 0 {
		q.Fail(errors.New("request has no place for its status"))
		_ = q.Push(c, 0)
		return
	}
	room := int64(c.WritableLen()) - 1
	n, err := d.serve(c, room)
	status := byte(statusOK)
	switch {
	case errors.Is(err, errUnsupported):
		status = statusUnsupported
	case err != nil:
		status = statusIOErr
	}
	_, _ = c.WriteAt([]byte{status}, room)
	_ = q.Push(c, uint32(n)+1)
	_ = q.Notify()
}

// serve carries a request out. It returns how many bytes it wrote to the
// driver's buffers, which have room for so many before the status.
func (d *disk) serve(c *vhostuser.Chain, room int64) (int64, error) {
	in := io.NewSectionReader(c, 0, int64(c.ReadableLen()))
	var h header
	if err := binary.Read(in, binary.LittleEndian, &h); err != nil {
		return 0, fmt.Errorf("read header: %w", err)
	}
	size := int64(c.ReadableLen()) - int64(binary.Size(h))
	switch {
	case h.Type == typeIn:
		off, err := d.offset(h.Sector, room)
		if err != nil {
			return 0, err
		}
		return io.CopyN(io.NewOffsetWriter(c, 0), io.NewSectionReader(d.file, off, room), room)
	case h.Type == typeFlush:
		return 0, d.file.Sync()
	case h.Type == typeGetID:
		id := append([]byte("vhost-user-blk"), make([]byte, idSize)...)
		n, err := c.WriteAt(id[:min(room, idSize)], 0)
		return int64(n), err
	case d.readOnly:
		return 0, unix.EROFS
	case h.Type == typeOut:
		off, err := d.offset(h.Sector, size)
		if err != nil {
			return 0, err
		}
		_, err = io.CopyN(io.NewOffsetWriter(d.file, off), in, size)
		return 0, err
	}
	return 0, errUnsupported
}

// offset returns where n bytes at a sector are in the file.
func (d *disk) offset(sector uint64, n int64) (int64, error) {
	if n%sectorSize != 0 || sector > d.sectors || uint64(n/sectorSize) > d.sectors-sector {
		return 0, fmt.Errorf("%d bytes at sector %d are outside of the disk", n, sector)
	}
	return int64(sector) * sectorSize, nil
}
