// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// The block device of VIRTIO 1.2, section 5.2.
const (
	featureSegMax      = 1 << 2
	featureReadOnly    = 1 << 5
	featureBlkSize     = 1 << 6
	featureFlush       = 1 << 9
	featureMQ          = 1 << 12
	featureDiscard     = 1 << 13
	featureWriteZeroes = 1 << 14

	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13

	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2

	sectorSize = 512 // of every number of sectors
	blockSize  = 4096
	maxSegs    = 126     // of data in a request
	maxSectors = 1 << 20 // of one discard or write zeroes request
	idSize     = 20
)

// header begins every request.
type header struct {
	Type, _ uint32
	Sector  uint64
}

// segment is the data of a discard or write zeroes request.
type segment struct {
	Sector         uint64
	Sectors, Flags uint32
}

const flagUnmap = 1

var errUnsupported = errors.New("request is not supported")

// disk is a block device whose content is a file.
type disk struct {
	file     *os.File
	sectors  uint64
	queues   int
	readOnly bool
}

func (d *disk) device() *vhostuser.Device {
	features := uint64(featureSegMax | featureBlkSize | featureFlush | featureMQ | 1<<wire.FeatureRingPacked)
	if d.readOnly {
		features |= featureReadOnly
	} else {
		features |= featureDiscard | featureWriteZeroes
	}
	return &vhostuser.Device{
		Features:  features,
		NumQueues: d.queues,
		// A request may be carried out twice, should this process die between.
		TrackInflight: true,
		ReadConfig: func(p []byte, off uint32) error {
			_, err := bytes.NewReader(d.config()).ReadAt(p, int64(off))
			return err
		},
		Kick: d.kick,
	}
}

// config returns the config space, struct virtio_blk_config. Fields of features
// that are never offered are zero.
func (d *disk) config() []byte {
	b := make([]byte, 96)
	le := binary.LittleEndian
	le.PutUint64(b[0:], d.sectors)
	le.PutUint32(b[12:], maxSegs)
	le.PutUint32(b[20:], blockSize)
	le.PutUint16(b[34:], uint16(d.queues))
	for _, limits := range [][]byte{b[36:], b[48:]} { // of discard and of write zeroes
		le.PutUint32(limits[0:], maxSectors)
		le.PutUint32(limits[4:], 1) // segments
	}
	le.PutUint32(b[44:], blockSize/sectorSize) // alignment of discard
	b[56] = 1                                  // write zeroes may give space back
	return b
}

// kick serves all requests that are available, side by side. It returns when
// they are answered, so that a queue that stops has none under way.
func (d *disk) kick(q *vhostuser.Queue) {
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

// answer carries a request out, and gives it back with its status in the last
// byte. A queue that was stopped meanwhile refuses both, which is fine.
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
	case errors.Is(err, errUnsupported), errors.Is(err, unix.EOPNOTSUPP):
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
		return copyAll(io.NewOffsetWriter(c, 0), io.NewSectionReader(d.file, off, room), room)
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
		_, err = copyAll(io.NewOffsetWriter(d.file, off), in, size)
		return 0, err
	case h.Type == typeDiscard, h.Type == typeWriteZeroes:
		return 0, d.clear(in, h.Type == typeWriteZeroes)
	}
	return 0, errUnsupported
}

// clear discards a range, or makes it read as zeroes.
func (d *disk) clear(in io.Reader, zeroes bool) error {
	var s segment
	if err := binary.Read(in, binary.LittleEndian, &s); err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	if s.Flags&^flagUnmap != 0 || s.Flags != 0 && !zeroes {
		return errUnsupported
	}
	off, err := d.offset(s.Sector, int64(s.Sectors)*sectorSize)
	if err != nil || s.Sectors == 0 || s.Sectors > maxSectors {
		return fmt.Errorf("clear %d sectors: %w", s.Sectors, errors.Join(unix.EINVAL, err))
	}
	mode := uint32(unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE)
	if zeroes && s.Flags == 0 { // the space has to stay allocated
		mode = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_ZERO_RANGE
	}
	return unix.Fallocate(int(d.file.Fd()), mode, off, int64(s.Sectors)*sectorSize)
}

// offset returns where n bytes at a sector are in the file.
func (d *disk) offset(sector uint64, n int64) (int64, error) {
	if n%sectorSize != 0 || sector > d.sectors || uint64(n/sectorSize) > d.sectors-sector {
		return 0, fmt.Errorf("%d bytes at sector %d are outside of the disk", n, sector)
	}
	return int64(sector) * sectorSize, nil
}

// copyAll copies n bytes; fewer are an error.
func copyAll(dst io.Writer, src io.Reader, n int64) (int64, error) {
	done, err := io.Copy(dst, src)
	if err == nil && done < n {
		err = io.ErrUnexpectedEOF
	}
	return done, err
}
