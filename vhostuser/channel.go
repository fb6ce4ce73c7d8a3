// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const (
	// answerTimeout is how long to wait until the frontend has read and answered a
	// request of the backend.
	answerTimeout = 5 * time.Second
	// maxNotes bounds the notifications that wait for a slow frontend. There
	// are two for each queue, three for the translations of its ring, and one
	// for the config space.
	maxNotes = 6 * maxQueues
)

// note is a notification to the frontend. Equal pending notes are merged.
type note struct {
	req   wire.BackendRequest
	queue int
	tlb   wire.IOTLB
}

func (n note) payload() []byte {
	switch n.req {
	case wire.BackendVringCall, wire.BackendVringErr:
		return wire.VringState{Index: uint32(n.queue)}.AppendTo(nil)
	case wire.BackendIOTLBMsg:
		return n.tlb.AppendTo(nil)
	}
	return nil
}

// exchange is a request to the frontend, for whose answer the caller waits.
type exchange struct {
	req     wire.BackendRequest
	payload []byte
	fds     []int
	replies bool // whether or not REPLY_ACK was negotiated
	done    chan answer
}

type answer struct {
	fd  int // of the frontend, or -1
	err error
}

// channel sends the backend's requests over the backend channel, one at a time. It has
// a goroutine of its own: the frontend may be waiting for a reply of the message
// goroutine, and would not answer a request from that goroutine.
type channel struct {
	lg        *zap.Logger
	wake      chan struct{} // capacity 1: there are notes
	exchanges chan *exchange

	mu        sync.Mutex
	stop      func() // ends the current goroutine and waits for it; nil if none
	ended     <-chan struct{}
	notes     []note
	suspended bool
}

func (c *channel) init(lg *zap.Logger) {
	c.lg = lg
	c.wake = make(chan struct{}, 1)
	c.exchanges = make(chan *exchange)
}

// notify sends a notification in the background, if there is a channel.
func (c *channel) notify(n note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil || slices.Contains(c.notes, n) {
		return
	}
	if len(c.notes) == maxNotes {
		c.lg.Warn("frontend takes no notifications, dropping one", zap.Stringer("request", n.req))
		return
	}
	c.notes = append(c.notes, n)
	c.wakeLocked()
}

func (c *channel) wakeLocked() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// next takes the oldest note. It returns none while the device is suspended, which must
// send nothing then (vhost-user.rst, "Suspended device state").
func (c *channel) next() (note, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notes) == 0 || c.suspended {
		return note{}, false
	}
	n := c.notes[0]
	c.notes = slices.Delete(c.notes, 0, 1)
	return n, true
}

// suspend switches whether all requests are held back.
func (c *channel) suspend(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspended = on
	c.wakeLocked()
}

// forget drops the notes about a stopped queue. The queue's next start interrupts the
// driver in any case.
func (c *channel) forget(queue int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = slices.DeleteFunc(c.notes, func(n note) bool {
		return n.req != wire.BackendConfigChange && n.req != wire.BackendIOTLBMsg && n.queue == queue
	})
}

// ask sends a request and waits for its answer, for at most answerTimeout or
// until stop is closed. The caller owns the descriptor in the answer; -1 is
// none. Without REPLY_ACK most requests have no answer.
func (c *channel) ask(e *exchange, stop <-chan struct{}) (fd int, err error) {
	c.mu.Lock()
	ended, suspended := c.ended, c.suspended
	if c.stop == nil {
		ended = nil
	}
	c.mu.Unlock()
	switch {
	case ended == nil:
		return -1, fmt.Errorf("send %v: %w", e.req, errNoChannel)
	case suspended:
		return -1, fmt.Errorf("send %v: the device is suspended", e.req)
	}
	e.done = make(chan answer, 1)
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case c.exchanges <- e:
	case <-ended:
		return -1, fmt.Errorf("send %v: %w", e.req, errNoChannel)
	case <-timer.C:
		return -1, fmt.Errorf("send %v: %w", e.req, os.ErrDeadlineExceeded)
	case <-stop:
		return -1, fmt.Errorf("send %v: %w", e.req, ErrQueueStopped)
	}
	select {
	case a := <-e.done:
		return a.fd, a.err
	case <-stop:
		go func() { // a late answer may have a descriptor, which has to be closed
			if a := <-e.done; a.fd >= 0 {
				unix.Close(a.fd)
			}
		}()
		return -1, fmt.Errorf("await answer to %v: %w", e.req, ErrQueueStopped)
	}
}

var errNoChannel = errors.New("frontend gave no backend channel")

// start replaces the connection of the channel by conn, which it owns.
func (c *channel) start(conn *wire.Conn, ack bool) {
	c.close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		s := stream{conn: conn, ack: ack}
		c.run(ctx, &s)
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = done
	c.stop = func() {
		cancel()
		<-done
	}
}

func (c *channel) close() {
	c.mu.Lock()
	stop := c.stop
	c.stop, c.notes = nil, nil
	c.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (c *channel) run(ctx context.Context, s *stream) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
			for n, ok := c.next(); ok; n, ok = c.next() {
				_, err := s.exchange(ctx, &exchange{req: n.req, payload: n.payload()})
				if err != nil && ctx.Err() == nil {
					c.lg.Warn("notification was not taken", zap.Stringer("request", n.req), zap.Error(err))
				}
			}
		case e := <-c.exchanges:
			fd, err := s.exchange(ctx, e)
			e.done <- answer{fd, err}
		}
	}
}

// stream is the state of the channel's goroutine.
type stream struct {
	conn *wire.Conn
	ack  bool
	// owed are the requests that the frontend still has to answer, also those
	// whose wait has timed out.
	owed []wire.BackendRequest
	dead error
}

// exchange sends a request, and waits for all owed answers. The last one is the answer
// to this request.
func (s *stream) exchange(ctx context.Context, e *exchange) (fd int, err error) {
	if s.dead != nil {
		return -1, s.dead
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	h := wire.Header{Request: uint32(e.req), Flags: wire.Version}
	if s.ack {
		h.Flags |= wire.FlagNeedReply
	}
	if err := s.conn.Send(ctx, h, e.payload, e.fds...); err != nil {
		return -1, s.fail(err)
	}
	if s.ack || e.replies {
		s.owed = append(s.owed, e.req)
	}
	for len(s.owed) > 0 {
		m, err := s.conn.Recv(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return -1, fmt.Errorf("await answer to %v: %w", e.req, os.ErrDeadlineExceeded)
		}
		if err != nil {
			return -1, s.fail(fmt.Errorf("await answer to %v: %w", e.req, err))
		}
		fd, err = s.take(m)
		if len(s.owed) > 0 && fd >= 0 {
			unix.Close(fd) // nobody waits for it any more
		}
		if s.dead != nil || len(s.owed) == 0 {
			return fd, err
		}
	}
	return -1, nil
}

// take checks the answer to the first owed request.
func (s *stream) take(m *wire.Message) (fd int, err error) {
	defer m.Close()
	req := s.owed[0]
	s.owed = s.owed[1:]
	if m.Request != uint32(req) || m.Flags&^wire.FlagNeedReply != wire.ReplyFlags {
		return -1, s.fail(fmt.Errorf("await answer to %v: got %v with flags %#x",
			req, wire.BackendRequest(m.Request), m.Flags))
	}
	v, err := wire.DecodeU64(m.Payload)
	switch {
	case err != nil:
		return -1, s.fail(err)
	case v != 0:
		return -1, fmt.Errorf("frontend refused %v: %v", req, v)
	case len(m.FDs) == 1:
		return m.TakeFD(0), nil
	}
	return -1, nil
}

// fail gives the channel up, because later messages can no longer be matched to
// requests.
func (s *stream) fail(err error) error {
	s.dead = fmt.Errorf("backend channel is out of use: %w", err)
	return err
}
