// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// OpenLog maps the dirty log of another frontend, as SET_LOG_BASE passes it. It
// owns fd, also when it fails.
func OpenLog(v wire.Log, fd int) (*Log, error) {
	m, err := shm.Map(fd, v.Offset, v.Size)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Log{fd: fd, mapping: m}, nil
}

// Mark sets the bits of pages, as a backend does. Pages beyond the end of the
// log have none.
func (l *Log) Mark(pages []uint64) {
	b := l.mapping.Bytes()
	for _, p := range pages {
		if p/8 < uint64(len(b)) {
			shm.Or32(b, int(p/32*4), 1<<(p%32))
		}
	}
}
