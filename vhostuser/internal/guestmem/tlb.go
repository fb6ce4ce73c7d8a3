// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// maxTranslations bounds the cache. What falls out is asked for again.
const maxTranslations = 8192

// iotlb translates the driver's I/O virtual addresses to addresses of the
// frontend, for a driver behind an IOMMU (vhost-user.rst, "IOMMU support"). It
// remembers what the frontend said, until the frontend takes it back.
type iotlb struct {
	on atomic.Bool // ACCESS_PLATFORM was negotiated

	// ask asks the frontend for a translation and waits for its answer; want
	// asks in the background.
	ask  func(v wire.IOTLB, stop <-chan struct{}) error
	want func(v wire.IOTLB)

	mu      sync.RWMutex
	entries []wire.IOTLB            // ascending and disjoint
	evict   int                     // rotates through entries
	waiting map[*miss]chan struct{} // closed when their translation has come
}

// missTimeout bounds the wait for a translation that the frontend promised.
const missTimeout = 2 * time.Second

// find returns the entry that holds addr, cut off before it, or reports false.
func (t *iotlb) find(addr uint64, perm uint8) (wire.IOTLB, bool) {
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
func (t *iotlb) search(addr uint64) int {
	return sort.Search(len(t.entries), func(i int) bool { return addr <= lastOf(t.entries[i]) })
}

func lastOf(v wire.IOTLB) uint64 { return v.IOVA + v.Size - 1 }

// add remembers a translation.
func (t *iotlb) add(v wire.IOTLB) {
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
func (t *iotlb) expect(m *miss) (come <-chan struct{}, forget func()) {
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
func (t *iotlb) remove(first, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut(first, last)
}

func (t *iotlb) cut(first, last uint64) {
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
	tlb  *iotlb
	addr uint64
	perm uint8
}

var _ delay = (*miss)(nil)

// Error implements error.
func (m *miss) Error() string {
	return fmt.Sprintf("no translation of I/O virtual address %#x for access %d", m.addr, m.perm)
}

func (m *miss) message() wire.IOTLB {
	return wire.IOTLB{IOVA: m.addr &^ (logPageSize - 1), Size: logPageSize, Perm: m.perm, Type: wire.IOTLBMiss}
}

// await asks the frontend and waits for what it has.
func (m *miss) await(stop <-chan struct{}) error {
	come, forget := m.tlb.expect(m)
	defer forget()
	if err := m.tlb.ask(m.message(), stop); err != nil {
		if errors.Is(err, ErrQueueStopped) {
			return nil
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
		m.tlb.want(v)
		return m
	}
}

// initIOTLB ties the cache to the backend channel.
func (b *Backend) initIOTLB() {
	b.tlb = &iotlb{
		waiting: make(map[*miss]chan struct{}),
		ask: func(v wire.IOTLB, stop <-chan struct{}) error {
			_, err := b.channel.ask(&exchange{req: wire.BackendIOTLBMsg, payload: v.AppendTo(nil)}, stop)
			return err
		},
		want: func(v wire.IOTLB) { b.channel.notify(note{req: wire.BackendIOTLBMsg, tlb: v}) },
	}
}

// iotlbMsg takes translations from the frontend, or gives them up.
func (b *Backend) iotlbMsg(m *wire.Message) (reply, error) {
	v, err := wire.DecodeIOTLB(m.Payload)
	if err != nil {
		return reply{}, err
	}
	if !b.tlb.on.Load() {
		return reply{}, fmt.Errorf("%v: %w", wire.Features(1<<wire.FeatureAccessPlatform), ErrNotNegotiated)
	}
	switch v.Type {
	case wire.IOTLBUpdate:
		err = b.addTranslation(v)
	case wire.IOTLBInvalidate:
		err = b.removeTranslations(v)
	default:
		err = fmt.Errorf("type of %v is not for backends", v)
	}
	b.lg.Debug("translation", zap.Stringer("message", v), zap.Error(err))
	return reply{payload: wire.U64(0).AppendTo(nil)}, err
}

func (b *Backend) addTranslation(v wire.IOTLB) error {
	if v.Size == 0 || lastOf(v) < v.IOVA || v.Perm > wire.IOTLBRead|wire.IOTLBWrite {
		return fmt.Errorf("add translation %v: its size or permission cannot be", v)
	}
	mem := b.mem.Load()
	if _, err := mem.user(v.UserAddr, v.Size); err != nil {
		return fmt.Errorf("add translation: %w", err)
	}
	b.tlb.add(v)
	for _, q := range b.queues {
		if q.paused() {
			q.setMemory(mem) // which may be what it waits for
		}
	}
	return nil
}

// forgetTranslations forgets those that a refused message was about, or all of
// them if that is not clear.
func (b *Backend) forgetTranslations(m *wire.Message) {
	if !b.tlb.on.Load() {
		return
	}
	all := wire.IOTLB{Type: wire.IOTLBInvalidate}
	v, err := wire.DecodeIOTLB(m.Payload)
	if err != nil || v.Type != wire.IOTLBUpdate || b.removeTranslations(v) != nil {
		_ = b.removeTranslations(all)
	}
}

// removeTranslations forgets a range. When it returns, nobody uses it any more:
// each queue has looked its ring up again, under the lock that all writes to
// guest memory hold.
func (b *Backend) removeTranslations(v wire.IOTLB) error {
	last := lastOf(v) // all there is, if both are zero
	if last < v.IOVA {
		return fmt.Errorf("remove translations %v: the range cannot be", v)
	}
	b.tlb.remove(v.IOVA, last)
	mem := b.mem.Load()
	for _, q := range b.queues {
		q.setMemory(mem)
	}
	return nil
}
