// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Spare is at most one child that has started, and read the kernel's types, before there is
// anything to load. It is confined as others are, and loads one object. No load depends on it.
// [NewSpare] makes one. A nil Spare never has a child. It is safe for concurrent use.
type Spare struct {
	keep    bool
	walk    []byte // for rehearsals
	lg      *zap.Logger
	command []string // instead of the agent's own program, for tests

	// wait is how long a child waits that was prepared for an offer. A fetch takes less.
	wait time.Duration
	// limit is when a child that is ready, and does not take a request, is given up. One that has
	// not rehearsed may have to start yet, which takes long on a busy host.
	limit time.Duration
	// next is when the next is made after a load. Before, a migration may want the guest's
	// processors, and what is written then has to be sent.
	next time.Duration
	// again is when one that has died without need is replaced. The guest may have too little
	// memory for it.
	again time.Duration

	mu     sync.Mutex // guards what follows
	child  *child
	ready  bool        // it takes requests
	timer  *time.Timer // of the next change; may be nil
	closed bool
}

// NewSpare returns a Spare without a child. With keep it always has one once Prepare was called,
// which has rehearsed a load with that walk. Else it has one from Prepare to the next load, or for
// some minutes.
func NewSpare(keep bool, walk []byte, lg *zap.Logger) *Spare {
	return &Spare{
		keep: keep, walk: walk, lg: lg, wait: 2 * time.Minute, limit: 10 * time.Second,
		next: 10 * time.Second, again: time.Minute,
	}
}

// Prepare has a child ready soon. It takes as long as the start of a process.
func (s *Spare) Prepare() {
	if s != nil {
		s.begin(s.keep)
	}
}

// Expect says that an object is on its way. If there is no child, one begins that is not at a
// rehearsal when the object comes, which the load would wait for. It takes as long as Prepare.
func (s *Spare) Expect() {
	if s != nil {
		s.begin(false)
	}
}

func (s *Spare) begin(rehearsed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.child == nil {
		s.start(rehearsed)
	}
	switch {
	case s.child != nil && !s.keep:
		s.later(s.wait, s.end)
	case s.child == nil && s.keep:
		s.later(s.again, s.Prepare)
	default:
		s.later(0, nil)
	}
}

// start starts a child, with mu held.
func (s *Spare) start(rehearsed bool) {
	how := prepareArg
	if rehearsed {
		how = readyArg
	}
	c, err := startChild(s.command, how)
	if err != nil {
		s.lg.Warn("no loader is made ready", zap.Error(err))
		return
	}
	s.child, s.ready = c, !rehearsed
	go s.watch(c)
	if rehearsed {
		go s.rehearse(c)
	}
}

// rehearse makes a child ready. One that fails at it ends.
func (s *Spare) rehearse(c *child) {
	ctx, cancel := within(context.Background(), LoadLimit)
	defer cancel()
	refusal, err := c.rehearse(ctx, s.walk)
	if err != nil {
		c.stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed: // nobody wants it any more
	case err != nil:
		s.lg.Warn("loader does not get ready", zap.Error(err))
	case s.child == c:
		s.ready = true
		s.lg.Info("loader is ready", zap.String("refusal", refusal))
	}
}

// later has f called after d, and nothing that was to be called before. f may be nil.
func (s *Spare) later(d time.Duration, f func()) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if f != nil {
		s.timer = time.AfterFunc(d, f)
	}
}

// watch waits for the end of a child. If nobody has taken it by then, it has died.
func (s *Spare) watch(c *child) {
	<-c.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child != c {
		return
	}
	c.stop()
	s.give()
	if s.keep && !s.closed {
		s.later(s.again, s.Prepare)
	}
}

// take returns the child if it is ready, which is the caller's then, or nil.
func (s *Spare) take() *child {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		return nil
	}
	return s.give()
}

// give returns the child, which is the caller's then, or nil. The caller has mu.
func (s *Spare) give() *child {
	c := s.child
	s.child, s.ready = nil, false
	s.later(0, nil)
	return c
}

// renew has the next child made after a load.
func (s *Spare) renew() {
	if s == nil || !s.keep {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil && !s.closed {
		s.later(s.next, s.Prepare)
	}
}

// end ends the child.
func (s *Spare) end() {
	s.mu.Lock()
	c := s.give()
	s.mu.Unlock()
	if c != nil {
		c.stop()
	}
}

// Close ends the child, and has no other made.
func (s *Spare) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
}
