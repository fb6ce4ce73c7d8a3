// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Options configure a Source. The zero value is usable.
type Options struct {
	// Disabled leaves the flag ENABLED of the config space clear at first.
	Disabled bool

	// HoldBudget is the longest that the driver should hold one zone's lock.
	// Zero means DefaultHoldBudget.
	HoldBudget time.Duration

	// HoldEntries is the most blocks that the driver should visit in one hold.
	// Zero means DefaultHoldEntries.
	HoldEntries uint32

	// PortReports lets the guest report by its serial port: see ServePort. Otherwise it can
	// only refuse there.
	PortReports bool

	// Changed is called after each change of what Identity and Started return. It
	// may be nil, must not block, and must not call the source.
	Changed func()

	// Logger may be nil.
	Logger *zap.Logger
}

// Defaults of Options.
const (
	DefaultHoldBudget = time.Millisecond
	// DefaultHoldEntries is where the kernel ends its own walk of free lists under
	// the zone's lock (mm/vmstat.c, pagetypeinfo_showfree_print).
	DefaultHoldEntries = 100_000
)

// Source is the guest's driver as a source of free pages.
type Source struct {
	lg          *zap.Logger
	changed     func()
	portReports bool

	mu       sync.Mutex
	config   protocol.Config
	eventq   *vhostuser.Queue // nil while stopped
	identity *Identity        // nil until HELLO
	wanted   bool             // HELLO was asked for since eventq started
	port     *port            // the serial port's connection; nil: none
	boot     *uint32          // the frontend's count of resets; nil before it is known
	open     *request         // nil when nothing is asked
	messages uint64           // that came from the driver
	programs programs
}

var _ source.Source = (*Source)(nil)

// New returns a source without a driver.
func New(o Options) *Source {
	s := &Source{lg: o.Logger, changed: o.Changed, portReports: o.PortReports}
	if s.lg == nil {
		s.lg = zap.NewNop()
	}
	if s.changed == nil {
		s.changed = func() {}
	}
	if o.HoldBudget == 0 {
		o.HoldBudget = DefaultHoldBudget
	}
	if o.HoldEntries == 0 {
		o.HoldEntries = DefaultHoldEntries
	}
	s.config = protocol.Config{
		Flags:         protocol.ConfigPrograms,
		BudgetUS:      microseconds(o.HoldBudget),
		BudgetEntries: o.HoldEntries,
	}
	if !o.Disabled {
		s.config.Flags |= protocol.ConfigEnabled
	}
	return s
}

// Name implements source.Source.
func (s *Source) Name() string { return "driver" }

// ReadConfig fills p with the bytes of the config space from off on.
func (s *Source) ReadConfig(p []byte, off uint32) error {
	var space [protocol.ConfigSize]byte
	s.mu.Lock()
	s.config.Encode(space[:])
	s.mu.Unlock()
	if end := uint64(off) + uint64(len(p)); end > protocol.ConfigSize {
		return fmt.Errorf("read config space: bytes %d to %d of %d", off, end, protocol.ConfigSize)
	}
	copy(p, space[off:])
	return nil
}

// SetEnabled sets the flag ENABLED of the config space and says whether that
// changed it. The caller notifies the driver.
func (s *Source) SetEnabled(on bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on == (s.config.Flags&protocol.ConfigEnabled != 0) {
		return false
	}
	s.config.Flags ^= protocol.ConfigEnabled
	return true
}

// QueueStarted takes over a queue.
func (s *Source) QueueStarted(q *vhostuser.Queue) {
	if q.Index() != protocol.EventQueue {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eventq, s.wanted = q, false
	s.complete(source.Failf(protocol.AnswerNoDriver, "another driver has started the device"))
	// A HELLO that is known by now came before this queue started: by the serial
	// port, or in a message that waited in reportq. The driver that starts the
	// queue may be another one.
	s.identity = nil
	s.programs.end()
	s.changed()
}

// QueueStopping stops the use of a queue and ends the open request.
func (s *Source) QueueStopping(q *vhostuser.Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Index() == protocol.EventQueue {
		// The guest may be paused, or it may have been reset and boot another
		// kernel. The device cannot tell which. So it forgets the driver, and asks
		// for a HELLO when the queue starts again [FBPP-INIT-2].
		s.eventq = nil
		s.forget()
		s.complete(source.Failf(protocol.AnswerNoDriver, "queues were stopped"))
		return
	}
	s.completeAt(nil, source.Failf(protocol.AnswerNoDriver, "queues were stopped"))
}

// Kick handles new buffers in q. It runs on q's own goroutine.
func (s *Source) Kick(q *vhostuser.Queue) {
	if q.Index() == protocol.EventQueue {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wantHello()
		s.flushPrograms()
		return
	}
	s.drainReports(q)
}

// Reset handles a reset of the device.
func (s *Source) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete(source.Failf(protocol.AnswerCancelled, "device was reset"))
	s.forget()
}

// Disconnected forgets the guest: the next frontend may run another guest.
func (s *Source) Disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete(source.Failf(protocol.AnswerCancelled, "frontend disconnected"))
	s.eventq, s.boot = nil, nil
	s.forget()
}

// forget forgets the driver. One that uses the serial port is asked for a HELLO. s.mu is held.
func (s *Source) forget() {
	s.identity = nil
	s.programs.end()
	s.invite()
	s.changed()
}

// Ask implements source.Source: it raises the migration interrupt and waits for
// the driver's report. Before it, a program that waits for a migration is offered.
// A driver that gives no sign of life is not waited for as long as one that does.
func (s *Source) Ask(ctx context.Context, r source.Request, f *source.Findings) error {
	ctx, stop := s.whileHeard(ctx)
	defer stop()
	var injected time.Duration
	if !r.Paused {
		injected = s.inject(ctx)
	}
	s.mu.Lock()
	x, err := s.begin(ctx, r, f)
	if err == nil {
		x.inject = injected
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case err := <-x.done:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == x {
		s.complete(x.overdue())
	}
	return <-x.done
}
