// SPDX-License-Identifier: Apache-2.0

package guestmem

import (
	"sync"
	"sync/atomic"
)

// maxPageWaits bounds the threads that wait for pages.
const maxPageWaits = 64

// Space is the guest memory of one connection. All methods may be called from
// any goroutine, unless they say otherwise.
type Space struct {
	// TLB translates the driver's addresses where there is an IOMMU.
	TLB *TLB

	current atomic.Pointer[Snapshot]
	waits   chan struct{} // one for each wait for pages: it costs a thread

	arriving     atomic.Bool // pages may be missing
	userModeOnly atomic.Bool // only accesses of user mode wait for them
	touching     sync.Mutex  // held by such an access
}

// NewSpace returns a Space without memory.
func NewSpace(tlb *TLB) *Space {
	s := &Space{TLB: tlb, waits: make(chan struct{}, maxPageWaits)}
	s.current.Store(s.Empty())
	return s
}

// Current returns the present table, retained: the caller must release it.
func (s *Space) Current() *Snapshot {
	for {
		m := s.current.Load()
		// A table that was replaced and freed meanwhile must not be retained again.
		if n := m.refs.Load(); n > 0 && m.refs.CompareAndSwap(n, n+1) {
			return m
		}
	}
}

// Expect says that pages may be missing from now on, at the destination of a postcopy
// migration. An access then waits until the frontend has placed the page. With userModeOnly
// system calls that access a missing page fail instead.
func (s *Space) Expect(userModeOnly bool) {
	s.userModeOnly.Store(userModeOnly)
	s.arriving.Store(true)
}

// Complete says that all pages are there.
func (s *Space) Complete() { s.arriving.Store(false) }

// Arriving says whether pages may be missing.
func (s *Space) Arriving() bool { return s.arriving.Load() }

// Peek returns the present table, for the goroutine that alone replaces it.
func (s *Space) Peek() *Snapshot { return s.current.Load() }

// Replace makes m, whose reference it consumes, the present table. The caller
// releases the old one.
func (s *Space) Replace(m *Snapshot) (old *Snapshot) { return s.current.Swap(m) }
