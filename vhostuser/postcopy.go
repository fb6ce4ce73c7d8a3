// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"
	"github.com/fbpp-project/fbpp/vhostuser/internal/shm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// postcopy is the destination of a postcopy migration (vhost-user.rst,
// "Migration"): the device runs before all of the guest's memory is there, and
// an access to a page that is not waits until the frontend has put it there.
//
// A memory table that comes after POSTCOPY_LISTEN is answered with the addresses of the mappings in
// this process, because faults are reported by these. The table is used after the frontend has
// acknowledged them.
//
// Only the message goroutine may use postcopy.
type postcopy struct {
	uffd       *shm.Userfault     // nil: not advised
	registered []*guestmem.Slot   // with a reference each
	told       *guestmem.Snapshot // the next table; nil: none waits for its acknowledgement
}

// addPostcopyRules adds the requests of PAGEFAULT.
func (b *Backend) addPostcopyRules(rules map[wire.Request]rule) {
	rules[wire.PostcopyAdvise] = rule{
		feature: wire.ProtocolPageFault, replies: true, refusal: []byte{}, handle: b.postcopyAdvise,
	}
	rules[wire.PostcopyListen] = rule{
		feature: wire.ProtocolPageFault,
		handle:  func(m *wire.Message) (reply, error) { return reply{}, b.postcopyListen(m) },
	}
	rules[wire.PostcopyEnd] = rule{
		feature: wire.ProtocolPageFault, replies: true, refusal: failed(), handle: b.postcopyEnd,
	}
}

func (b *Backend) postcopyAdvise(*wire.Message) (reply, error) {
	if b.post.uffd != nil {
		return reply{}, errors.New("postcopy was advised already")
	}
	uffd, err := b.openUserfault()
	if err != nil {
		return reply{}, err
	}
	b.post.uffd = uffd
	return reply{fds: []int{uffd.FD}}, nil
}

func (b *Backend) postcopyListen(*wire.Message) error {
	switch {
	case b.post.uffd == nil:
		return errors.New("postcopy was not advised")
	case b.mem.Arriving():
		return errors.New("postcopy has begun already")
	case len(b.mem.Peek().Slots()) > 0:
		// The frontend does not know the addresses of these, so it could not resolve faults.
		return errors.New("memory regions were sent before")
	}
	b.mem.Expect(b.post.uffd.UserModeOnly)
	return nil
}

func (b *Backend) postcopyEnd(*wire.Message) (reply, error) {
	if !b.mem.Arriving() {
		return reply{}, errors.New("postcopy has not begun")
	}
	return reply{payload: wire.U64(0).AppendTo(nil)}, b.endPostcopy(false)
}

// endPostcopy closes the userfaultfd. With revoke, because the frontend is gone, waiting accesses
// fail. Without, all pages have arrived.
func (b *Backend) endPostcopy(revoke bool) (err error) {
	p := &b.post
	if p.uffd == nil {
		return nil
	}
	for _, s := range p.registered {
		if revoke {
			// An access that continued would place a zero page in memory that the
			// frontend may still use.
			err = errors.Join(err, s.Mapping.Revoke())
		}
		err = errors.Join(err, p.uffd.Unregister(s.Mapping))
	}
	guestmem.ReleaseAll(p.registered)
	p.registered = nil
	p.tell(nil)
	b.mem.Complete()
	p.uffd.Close()
	p.uffd = nil
	return err
}

// tell makes table, whose reference it consumes, the next one; nil: there is none.
func (p *postcopy) tell(table *guestmem.Snapshot) {
	if p.told != nil {
		p.told.Release()
	}
	p.told = table
}

// tellTable is setMemTable after POSTCOPY_LISTEN: either the table, which is
// answered, or the frontend's acknowledgement.
func (b *Backend) tellTable(m *wire.Message) (reply, error) {
	if isAcknowledgement(m) {
		return reply{}, b.acknowledged(m)
	}
	slots, err := b.mapTable(m)
	defer guestmem.ReleaseAll(slots)
	if err != nil {
		return reply{}, fatalError{err}
	}
	table, err := b.mem.Table(slots)
	if err != nil {
		return reply{}, fatalError{err}
	}
	b.post.tell(table)
	var answer wire.MemTable
	for _, s := range slots {
		answer = append(answer, s.Told())
	}
	return reply{payload: answer.AppendTo(nil), always: true}, b.register(slots...)
}

// tellSlot is the same for addMemReg. The frontend understands nothing but our
// address, so that an error ends the connection.
func (b *Backend) tellSlot(m *wire.Message) (reply, error) {
	if isAcknowledgement(m) {
		return reply{}, b.acknowledged(m)
	}
	slot, err := b.mapSlot(m)
	if err != nil {
		return reply{}, fatalError{err}
	}
	defer slot.Release()
	table, err := b.nextTable().With(slot)
	if err != nil {
		return reply{}, fatalError{err}
	}
	b.post.tell(table)
	answer := wire.SingleMemRegion{MemRegion: slot.Told()}
	return reply{payload: answer.AppendTo(nil), always: true}, b.register(slot)
}

// register makes accesses to missing pages of new slots wait.
func (b *Backend) register(slots ...*guestmem.Slot) error {
	for _, s := range slots {
		if err := b.post.uffd.Register(s.Mapping); err != nil {
			return fatalError{err}
		}
		s.Retain()
		b.post.registered = append(b.post.registered, s)
	}
	return nil
}

// nextTable returns the table that waits for its acknowledgement, or the current
// one. The reference stays its owner's.
func (b *Backend) nextTable() *guestmem.Snapshot {
	if b.post.told != nil {
		return b.post.told
	}
	return b.mem.Peek()
}

// acknowledged begins to use the table that the frontend was told.
func (b *Backend) acknowledged(m *wire.Message) error {
	status, err := wire.DecodeU64(m.Payload)
	switch {
	case err != nil:
		return err
	case b.post.told == nil:
		return errors.New("there is no memory table to acknowledge")
	case status != 0:
		b.post.tell(nil)
		return fmt.Errorf("frontend cannot use our addresses: %v", status)
	}
	table := b.post.told
	b.post.told = nil
	b.useMemory(table)
	return nil
}

// isAcknowledgement tells the frontend's answer to our addresses from a table.
func isAcknowledgement(m *wire.Message) bool {
	return len(m.FDs) == 0 && len(m.Payload) == sizeU64
}

// retry calls f, and again when the pages that it needs have arrived. Meanwhile the frontend waits
// for this request, but another of its threads places the pages.
func (b *Backend) retry(f func() error) error {
	for {
		err := f()
		if !guestmem.IsAbsent(err) {
			return err
		}
		wait := guestmem.AsDelay(err)
		done := make(chan struct{})
		stop := make(chan struct{})
		go func() {
			defer close(done)
			err = wait.Await(stop)
		}()
		if !b.waitFor(done, waitForever) {
			close(stop)
			<-done
			return fatalError{fmt.Errorf("%w: the frontend left", wait)}
		}
		if err != nil {
			return err
		}
	}
}

// openUserfault makes a userfaultfd as the server was told.
func (b *Backend) openUserfault() (*shm.Userfault, error) {
	if b.opts.noPostcopy {
		return nil, errors.New("postcopy is switched off")
	}
	return shm.OpenUserfault(b.opts.userfault)
}

// mayPostcopy says whether PAGEFAULT can be offered, and logs how.
func (b *Backend) mayPostcopy() bool {
	u, err := b.openUserfault()
	if err != nil {
		b.lg.Info("postcopy is not offered", zap.Error(err))
		return false
	}
	defer u.Close()
	b.lg.Debug("postcopy is offered", zap.Bool("user_mode_only", u.UserModeOnly))
	return true
}
