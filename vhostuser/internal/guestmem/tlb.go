// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// maxTranslations bounds the cache. What falls out is asked for again.
const maxTranslations = 8192

// TLB translates the driver's I/O virtual addresses to addresses of the
// frontend, for a driver behind an IOMMU (vhost-user.rst, "IOMMU support"). It
// remembers what the frontend said, until the frontend takes it back.
type TLB struct {
	// On says that ACCESS_PLATFORM was negotiated.
	On atomic.Bool
	// Ask asks the frontend for a translation and waits for its answer, or until
	// stop is closed. Want asks in the background.
	Ask  func(v wire.IOTLB, stop <-chan struct{}) error
	Want func(v wire.IOTLB)

	mu      sync.RWMutex
	entries []wire.IOTLB            // ascending and disjoint
	evict   int                     // rotates through entries
	waiting map[*miss]chan struct{} // closed when their translation has come
}

// NewTLB returns an empty TLB, which is switched off.
func NewTLB() *TLB { return &TLB{waiting: make(map[*miss]chan struct{})} }

// missTimeout bounds the wait for a translation that the frontend promised.
const missTimeout = 2 * time.Second

// find returns the entry that holds addr, cut off before it, or reports false.
func (t *TLB) find(addr uint64, perm uint8) (wire.IOTLB, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := t.search(addr)
	if i == len(t.entries) || t.entries[i].IOVA > addr || t.entries[i].Perm&perm != perm {
		return wire.IOTLB{}, false
	}
	e := t.entries[i]
	off := addr - e.IOVA
	e.IOVA, e.UserAddr, e.Size = addr, e.UserAddr+off, e.Size-off
	return e, true
}

// search returns the index of the first entry that does not end before addr.
func (t *TLB) search(addr uint64) int {
	return sort.Search(len(t.entries), func(i int) bool { return addr <= lastOf(t.entries[i]) })
}

// lastOf returns the last address of a translation.
func lastOf(v wire.IOTLB) uint64 { return v.IOVA + v.Size - 1 }

// add remembers a translation.
func (t *TLB) add(v wire.IOTLB) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut(v.IOVA, lastOf(v))
	i := t.search(v.IOVA)
	switch {
	case i > 0 && adjoin(t.entries[i-1], v):
		t.entries[i-1].Size += v.Size
	default:
		t.entries = slices.Insert(t.entries, i, v)
		i++
	}
	if i < len(t.entries) && adjoin(t.entries[i-1], t.entries[i]) {
		t.entries[i-1].Size += t.entries[i].Size
		t.entries = slices.Delete(t.entries, i, i+1)
	}
	for len(t.entries) > maxTranslations {
		t.evict = (t.evict + 1) % len(t.entries)
		if t.entries[t.evict].IOVA != v.IOVA {
			t.entries = slices.Delete(t.entries, t.evict, t.evict+1)
		}
	}
	for m, come := range t.waiting {
		if m.addr >= v.IOVA && m.addr <= lastOf(v) && v.Perm&m.perm == m.perm {
			close(come)
			delete(t.waiting, m)
		}
	}
}

// expect returns a channel that is closed when the translation has come, even
// if it is gone again at once. The caller calls forget.
func (t *TLB) expect(m *miss) (come <-chan struct{}, forget func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ch := make(chan struct{})
	t.waiting[m] = ch
	return ch, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.waiting, m)
	}
}

// adjoin says whether b goes on where a ends.
func adjoin(a, b wire.IOTLB) bool {
	return a.IOVA+a.Size == b.IOVA && a.UserAddr+a.Size == b.UserAddr && a.Perm == b.Perm
}

// remove forgets the translations of first to last.
func (t *TLB) remove(first, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut(first, last)
}

func (t *TLB) cut(first, last uint64) {
	i := t.search(first)
	if i < len(t.entries) && t.entries[i].IOVA < first {
		// What comes before stays, and so may what comes after.
		e := t.entries[i]
		t.entries[i].Size = first - e.IOVA
		if lastOf(e) > last {
			off := last + 1 - e.IOVA
			e.IOVA, e.UserAddr, e.Size = last+1, e.UserAddr+off, e.Size-off
			t.entries = slices.Insert(t.entries, i+1, e)
			return
		}
		i++
	}
	j := i
	for j < len(t.entries) && lastOf(t.entries[j]) <= last {
		j++
	}
	if j < len(t.entries) && t.entries[j].IOVA <= last {
		e := &t.entries[j]
		off := last + 1 - e.IOVA
		e.IOVA, e.UserAddr, e.Size = last+1, e.UserAddr+off, e.Size-off
	}
	t.entries = slices.Delete(t.entries, i, j)
}

// miss is the delay of an access whose translation is not known.
type miss struct {
	tlb  *TLB
	addr uint64
	perm uint8
}

var _ Delay = (*miss)(nil)

// Error implements error.
func (m *miss) Error() string {
	return fmt.Sprintf("no translation of I/O virtual address %#x for access %d", m.addr, m.perm)
}

func (m *miss) message() wire.IOTLB {
	return wire.IOTLB{IOVA: m.addr &^ (LogPageSize - 1), Size: LogPageSize, Perm: m.perm,
		Type: wire.IOTLBMiss}
}

// Await asks the frontend and waits for what it has.
func (m *miss) Await(stop <-chan struct{}) error {
	come, forget := m.tlb.expect(m)
	defer forget()
	if err := m.tlb.Ask(m.message(), stop); err != nil {
		select {
		case <-stop:
			return nil
		default:
		}
		return fmt.Errorf("%w: %w", m, err)
	}
	// The answer says that the translation was sent, and it may be on its way.
	timer := time.NewTimer(missTimeout)
	defer timer.Stop()
	select {
	case <-come:
		return nil
	case <-stop:
		return nil
	case <-timer.C:
		v := m.message()
		v.Type = wire.IOTLBAccessFail
		m.tlb.Want(v)
		return m
	}
}
