// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Log is a dirty log shared with the backend.
type Log struct {
	fd      int
	mapping *shm.Mapping
}

// NewLog makes a log for guest memory up to end, as QEMU sizes it.
func NewLog(end uint64) (*Log, error) {
	size := (end/PageSize/64 + 1) * 8
	fd, err := unix.MemfdCreate("dirty log", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make dirty log: %w", os.NewSyscallError("memfd_create", err))
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make dirty log: %w", os.NewSyscallError("ftruncate", err))
	}
	m, err := shm.Map(fd, 0, size)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Log{fd: fd, mapping: m}, nil
}

// Harvest returns the pages whose bits are set, and clears them.
func (l *Log) Harvest() []uint64 {
	var pages []uint64
	b := l.mapping.Bytes()
	for off := 0; off < len(b); off += 4 {
		w := shm.Swap32(b, off, 0)
		for bit := range 32 {
			if w>>bit&1 != 0 {
				pages = append(pages, uint64(off)*8+uint64(bit))
			}
		}
	}
	return pages
}

// Give passes the log's description and descriptor to f.
func (l *Log) Give(f func(v wire.Log, fd int) error) error {
	return f(wire.Log{Size: uint64(len(l.mapping.Bytes()))}, l.fd)
}

// Truncate takes the memory away from under the backend's mapping.
func (l *Log) Truncate() error {
	return os.NewSyscallError("ftruncate", unix.Ftruncate(l.fd, 0))
}

// Close frees the log. It may be called twice.
func (l *Log) Close() {
	if l.fd < 0 {
		return
	}
	unix.Close(l.fd)
	l.fd = -1
	_ = l.mapping.Unmap()
}

// Migration imitates a live migration of the guest's memory to check the dirty log: a write
// that the log misses is missing at the destination.
//
// Pages that the guest writes are copied in any case, which hides a missing mark. So buffers
// that the device writes should share no page with memory that the driver writes.
// Guest.Alloc ensures that.
type Migration struct {
	// Log is the current log.
	Log *Log

	f      *Frontend
	g      *Guest
	queues []*Queue
	dest   map[*Block][]byte
}

// StartMigration switches logging on, in QEMU's order, and copies all memory. After an error
// it has freed everything, but the backend may log already. The caller closes the Migration.
func (f *Frontend) StartMigration(g *Guest, queues ...*Queue) (*Migration, error) {
	log, err := NewLog(g.End())
	if err != nil {
		return nil, err
	}
	m := &Migration{Log: log, f: f, g: g, queues: queues, dest: make(map[*Block][]byte)}
	g.mu.Lock()
	g.dirty = make(map[uint64]bool)
	g.mu.Unlock()
	err = f.sendLog(log)
	if err == nil {
		err = m.setLogging(true)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	m.copyNewBlocks()
	return m, nil
}

func (f *Frontend) sendLog(l *Log) error { return f.SetLog(l, uint64(len(l.mapping.Bytes()))) }

// SetLog sends the first size bytes of a log, whether it has that many or not.
func (f *Frontend) SetLog(l *Log, size uint64) error {
	r, err := f.Ask(wire.SetLogBase, wire.Log{Size: size}.AppendTo(nil), l.fd)
	if err != nil {
		return err
	}
	defer r.Close()
	// The protocol leaves the reply's payload open: libvhost-user sends the size
	// back, vhostuser an error other than 0.
	if status, err := wire.DecodeU64(r.Payload); err == nil && status != 0 && uint64(status) != size {
		return &Refused{Request: wire.SetLogBase, Status: status}
	}
	return nil
}

func (m *Migration) setLogging(on bool) error {
	m.f.logAll = on
	if err := m.f.SetFeatures(uint64(m.f.Features)); err != nil {
		return err
	}
	for _, q := range m.queues {
		if err := m.f.SetAddr(q); err != nil {
			return err
		}
	}
	return nil
}

// copyNewBlocks copies blocks that were added since the last round.
func (m *Migration) copyNewBlocks() {
	for _, b := range m.g.Blocks {
		if m.dest[b] != nil {
			continue
		}
		m.dest[b] = make([]byte, b.Size())
		for from, to := range b.touched() {
			copy(m.dest[b][from:to], b.mapping.Bytes()[from:])
		}
	}
}

// Round copies the pages that were written since the last one, and returns
// those that the backend logged.
func (m *Migration) Round() []uint64 {
	pages := m.Log.Harvest()
	m.copyNewBlocks()
	for _, p := range pages {
		m.copyPage(p)
	}
	m.g.mu.Lock()
	own := m.g.dirty
	m.g.dirty = make(map[uint64]bool)
	m.g.mu.Unlock()
	for p := range own {
		m.copyPage(p)
	}
	return pages
}

func (m *Migration) copyPage(p uint64) {
	addr := p * PageSize
	if b := m.g.block(addr); b != nil {
		off := addr - b.Addr
		copy(m.dest[b][off:off+PageSize], b.mapping.Bytes()[off:])
	}
}

// SwapLog replaces the log, as QEMU does when memory is added, and copies the pages that the
// old log still marks. After an error the old log is still in use.
func (m *Migration) SwapLog() error {
	log, err := NewLog(m.g.End())
	if err != nil {
		return err
	}
	if err := m.f.sendLog(log); err != nil {
		log.Close()
		return err
	}
	old := m.Log
	m.Log = log
	m.copyNewBlocks()
	for _, p := range old.Harvest() {
		m.copyPage(p)
	}
	old.Close()
	return nil
}

// Missing copies a last round and returns the pages that still differ. Nothing
// may write to the guest during the call.
func (m *Migration) Missing() []uint64 {
	m.Round()
	var pages []uint64
	for _, b := range m.g.Blocks {
		src, dst := b.mapping.Bytes(), m.dest[b]
		for off, end := range b.touched() {
			for ; off < end; off += PageSize {
				if !bytes.Equal(src[off:off+PageSize], dst[off:off+PageSize]) {
					pages = append(pages, (b.Addr+off)/PageSize)
				}
			}
		}
	}
	return pages
}

// Cancel switches logging off, as after a failed migration, while the rings go
// on.
func (m *Migration) Cancel() error {
	err := m.setLogging(false)
	m.Close()
	return err
}

// Close frees the log. The backend keeps its own mapping of it.
func (m *Migration) Close() {
	m.g.mu.Lock()
	m.g.dirty = nil
	m.g.mu.Unlock()
	m.f.logAll = false
	m.Log.Close()
}
