// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/fbpp-project/fbpp/vhostuser/internal/eventfd"
	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// LogPageSize is the size of the page that one bit of the dirty log stands for
// (VHOST_LOG_PAGE), on every architecture.
const LogPageSize = 4096

// DirtyLog marks the guest pages that the backend writes, in a bitmap that it
// shares with the frontend (vhost-user.rst, "Migration").
//
// A write comes first and its mark second: the frontend may harvest the bitmap
// between the two, and a mark that precedes its write would be consumed too
// early. For the same reason whether to mark is decided after the write.
type DirtyLog struct {
	active atomic.Bool // all && mapping != nil, for the fast path

	mu      sync.RWMutex // excludes marking from a change of the mapping
	all     bool
	mapping *shm.Mapping
	event   eventfd.FD // raised after each mark
}

// SetAll switches logging as LOG_ALL says. A guest may acknowledge the bit by
// itself, so that it is set without any log; nothing is marked then.
func (l *DirtyLog) SetAll(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = on
	l.active.Store(l.all && l.mapping != nil)
}

// Replace maps the log that fd holds and uses it from now on. When it returns,
// nobody marks the previous one any more. fd stays the caller's.
func (l *DirtyLog) Replace(v wire.Log, fd int) error {
	if v.Size%8 != 0 {
		return fmt.Errorf("map dirty log: size %#x is not a multiple of 8", v.Size)
	}
	m, err := shm.Map(fd, v.Offset, v.Size)
	if err != nil {
		return fmt.Errorf("map dirty log: %w", err)
	}
	l.swap(m)
	return nil
}

// Close forgets the log.
func (l *DirtyLog) Close() {
	l.swap(nil)
	l.SetEvent(-1)
}

// SetEvent makes fd, which it owns, the eventfd that tells of marks; negative
// means none.
func (l *DirtyLog) SetEvent(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.event.Replace(fd)
}

func (l *DirtyLog) swap(m *shm.Mapping) {
	l.mu.Lock()
	old := l.mapping
	l.mapping = m
	l.active.Store(l.all && l.mapping != nil)
	l.mu.Unlock()
	if old != nil {
		_ = old.Unmap()
	}
}

// Mark sets the bits of the pages that hold the n bytes at guest address addr.
// Pages beyond the end of the bitmap are none of the frontend's RAM. It must
// be called inside a Guard.
func (l *DirtyLog) Mark(addr, n uint64) {
	if n == 0 || !l.active.Load() {
		return
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.all || l.mapping == nil {
		return
	}
	bits := l.mapping.Bytes()
	last := min((addr+n-1)/LogPageSize, uint64(len(bits))*8-1)
	for page := addr / LogPageSize; page <= last; {
		// One atomic OR for all pages that share a word. Words of 32 bits do
		// for the frontend's 64-bit chunks, on a little-endian host.
		end := min(page|31, last)
		mask := uint32(1<<(end-page+1)-1) << (page & 31)
		shm.Or32(bits, int(page/32*4), mask)
		page = end + 1
	}
	_ = l.event.Raise() // the frontend, which gave it, can look without it
}
