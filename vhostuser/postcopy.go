// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// postcopy is the destination of a postcopy migration (vhost-user.rst,
// "Migration"): the device runs before all of the guest's memory is there, and
// an access to a page that is not waits until the frontend has put it there.
//
// The table that comes after POSTCOPY_LISTEN is answered with our addresses, by
// which the frontend knows the faults, and is used once the frontend has taken
// notice.
type postcopy struct {
	active atomic.Bool   // pages may be missing
	slots  chan struct{} // one for each wait: it costs a thread

	// Of the message goroutine alone.
	uffd       *shm.Userfault // nil: not advised
	registered []*region      // with a reference each
	told       []*region      // the next table, with a reference each
	telling    bool           // told is not acknowledged yet
}

// maxPageWaits bounds the threads that wait for pages.
const maxPageWaits = 64

func newPostcopy() *postcopy { return &postcopy{slots: make(chan struct{}, maxPageWaits)} }

// absent is the delay of an access to pages that have yet to arrive.
type absent struct {
	b       *Backend
	addr, n uint64 // in the guest
}

var _ delay = (*absent)(nil)

// Error implements error.
func (a *absent) Error() string {
	return fmt.Sprintf("%#x bytes at %#x have yet to arrive", a.n, a.addr)
}

// await waits for the pages, on a thread that is left behind if stop is closed.
func (a *absent) await(stop <-chan struct{}) error {
	select {
	case a.b.post.slots <- struct{}{}:
	case <-stop:
		return nil
	}
	m := a.b.Memory()
	done := make(chan error, 1)
	go func() {
		defer func() { <-a.b.post.slots }()
		defer m.Release()
		done <- m.populate(a.addr, a.n)
	}()
	select {
	case err := <-done:
		return err
	case <-stop:
		return nil
	}
}

// populate waits until n bytes at a guest address are there.
func (m *Memory) populate(addr, n uint64) error {
	segs, err := m.lookup(nil, addr, n)
	if err != nil {
		return err
	}
	for _, s := range segs {
		if err := shm.Populate(s.Bytes); err != nil {
			return fmt.Errorf("wait for pages at %#x: %w", s.Addr, err)
		}
	}
	return nil
}

// arriving says whether pages may have yet to arrive.
func (m *Memory) arriving() bool { return m.b != nil && m.b.post.active.Load() }

// present returns an absent delay unless all pages of b, which is at a guest
// address, are there.
func (m *Memory) present(b []byte, addr uint64) error {
	if !m.arriving() || shm.Resident(b) {
		return nil
	}
	return &absent{m.b, addr, uint64(len(b))}
}

// retry calls f again when the pages that it needs have arrived. Meanwhile the
// frontend waits for us; what it waits for comes by another of its threads.
func (b *Backend) retry(f func() error) error {
	for {
		err := f()
		var a *absent
		if !errors.As(err, &a) {
			return err
		}
		done := make(chan struct{})
		stop := make(chan struct{})
		go func() {
			defer close(done)
			err = a.await(stop)
		}()
		if !b.waitFor(done, waitForever) {
			close(stop)
			<-done
			return fatalError{fmt.Errorf("%w: the frontend left", a)}
		}
		if err != nil {
			return err
		}
	}
}

func (b *Backend) postcopyAdvise(*wire.Message) (reply, error) {
	p := b.post
	if p.uffd != nil {
		return reply{}, errors.New("postcopy was advised already")
	}
	uffd, err := shm.OpenUserfault()
	if err != nil {
		return reply{}, err
	}
	p.uffd = uffd
	return reply{fds: []int{uffd.FD}}, nil
}

func (b *Backend) postcopyListen(*wire.Message) error {
	switch {
	case b.post.uffd == nil:
		return errors.New("postcopy was not advised")
	case b.post.active.Load():
		return errors.New("postcopy has begun already")
	case len(b.mem.Load().regions) > 0:
		// Their addresses were never told, so that nobody could serve them.
		return errors.New("memory regions were sent before")
	}
	b.post.active.Store(true)
	return nil
}

func (b *Backend) postcopyEnd(*wire.Message) (reply, error) {
	if !b.post.active.Load() {
		return reply{}, errors.New("postcopy has not begun")
	}
	return reply{payload: wire.U64(0).AppendTo(nil)}, b.endPostcopy(false)
}

// endPostcopy lets go of the userfaultfd. With revoke, for a frontend that is
// gone, the accesses that wait fail; without, all pages have arrived.
func (b *Backend) endPostcopy(revoke bool) (err error) {
	p := b.post
	if p.uffd == nil {
		return nil
	}
	for _, r := range p.registered {
		if revoke {
			// An access that went on would put an empty page into memory that
			// the frontend may still use.
			err = errors.Join(err, r.mapping.Revoke())
		}
		err = errors.Join(err, p.uffd.Unregister(r.mapping))
	}
	releaseAll(p.registered)
	p.registered = nil
	p.forget()
	p.active.Store(false)
	p.uffd.Close()
	p.uffd = nil
	return err
}

func (p *postcopy) forget() {
	releaseAll(p.told)
	p.told, p.telling = nil, false
}

// tell registers regions that are new, and makes all of them the next table.
// It consumes the references to both.
func (b *Backend) tell(old, added []*region) error {
	p := b.post
	all := append(old, added...)
	mem, err := newMemory(all) // only to check it
	if err != nil {
		releaseAll(all)
		return fatalError{err}
	}
	mem.Release()
	for _, r := range added {
		if err := p.uffd.Register(r.mapping); err != nil {
			releaseAll(all)
			return fatalError{err}
		}
		r.refs.Add(1)
		p.registered = append(p.registered, r)
	}
	p.forget()
	p.told, p.telling = all, true
	return nil
}

// table returns the regions of the next table, or of the current one.
func (b *Backend) table() []*region {
	if b.post.telling {
		return b.post.told
	}
	return b.mem.Load().regions
}

// acknowledged begins to use the table that the frontend was told.
func (b *Backend) acknowledged(m *wire.Message) error {
	status, err := wire.DecodeU64(m.Payload)
	switch {
	case err != nil:
		return err
	case !b.post.telling:
		return errors.New("there is no memory table to acknowledge")
	case status != 0:
		b.post.forget()
		return fmt.Errorf("frontend cannot use our addresses: %v", status)
	}
	mem, err := newMemory(b.post.told)
	if err != nil {
		return err
	}
	b.post.forget()
	b.useMemory(mem)
	return nil
}

// isAcknowledgement tells the frontend's answer to our addresses from a table.
func isAcknowledgement(m *wire.Message) bool {
	return len(m.FDs) == 0 && len(m.Payload) == sizeU64
}

// told returns the region as the answer to a table has it, with our address.
func told(r *region) wire.MemRegion {
	v := r.MemRegion
	v.UserAddr = shm.Addr(r.data)
	return v
}

// noPostcopy says why PAGEFAULT is not offered, if it is not.
func noPostcopy(lg *zap.Logger) bool {
	u, err := shm.OpenUserfault()
	if err != nil {
		lg.Info("postcopy is not offered", zap.Error(err))
		return true
	}
	u.Close()
	return false
}
