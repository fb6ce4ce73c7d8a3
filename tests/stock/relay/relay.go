// SPDX-License-Identifier: Apache-2.0

// Package relay is a relay between QEMU and a vhost-user backend that checks the backend's
// dirty log.
//
// QEMU itself marks parts of a ring when a device stops. So a guest can arrive intact even
// if the backend's log is wrong. The relay gives the backend a log of its own, remembers
// the marks in it, and copies them to QEMU's log. In the end it compares the marks with the
// pages that the backend has written according to the kernel.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Watch tells which pages of guest memory the backend writes.
type Watch interface {
	// Begin forgets all earlier writes.
	Begin() error
	// Written returns the pages of a file that were written since Begin, as
	// offsets in the file, in ascending order.
	Written(inode uint64) ([]uint64, error)
}

// Sabotage makes the backend write without marking, to test that the relay finds it.
type Sabotage int

// The kinds of sabotage.
const (
	None        Sabotage = iota
	HideLogAll           // the backend does not hear of logging at all
	HideRingLog          // the backend does not hear that writes to its rings are logged
)

// harvestInterval is how often QEMU gets the marks of a running device.
const harvestInterval = 5 * time.Millisecond

// Relay passes messages between a backend and its frontends, one at a time. It is safe for
// concurrent use.
type Relay struct {
	backend string
	watch   Watch
	l       *net.UnixListener
	work    errgroup.Group
	cancel  context.CancelFunc

	mu       sync.Mutex // guards the rest
	sabotage Sabotage
	regions  []region
	logs     *logs
	next     *logs // given to the backend, which has not answered yet
	begun    bool  // a period of logging has begun
	flagged  bool  // the SET_VRING_ADDR that waits for its answer has the flag
	started  map[uint32]bool
	failed   error
}

// region is a piece of guest memory.
type region struct {
	wire.MemRegion
	inode uint64
}

// Start listens at path for frontends, and connects each to the backend's
// socket. The caller closes the relay.
func Start(path, backend string, w Watch) (*Relay, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("start relay: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Relay{backend: backend, watch: w, l: l, cancel: cancel, started: make(map[uint32]bool)}
	r.work.Go(func() error { return r.serve(ctx) })
	return r, nil
}

// Sabotage hides logging from the backend, from the next time that logging is switched on.
func (r *Relay) Sabotage(s Sabotage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sabotage = s
}

// Logging says whether the device runs with its writes logged.
func (r *Relay) Logging() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun && len(r.started) > 0
}

// Close ends all connections and frees the logs. It returns the errors of all connections.
func (r *Relay) Close() error {
	r.cancel()
	err := r.work.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs.close()
	r.next.close()
	r.logs, r.next = nil, nil
	return errors.Join(err, r.failed)
}

// serve serves one frontend after the other.
func (r *Relay) serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { r.l.Close() })()
	for {
		conn, err := r.l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept frontend: %w", err)
		}
		if err := r.connect(ctx, conn); err != nil {
			r.mu.Lock()
			r.failed = errors.Join(r.failed, err)
			r.mu.Unlock()
		}
	}
}

// connect passes messages until either side hangs up.
func (r *Relay) connect(ctx context.Context, conn *net.UnixConn) error {
	front, err := wire.NewConnUnix(conn, "relay")
	if err != nil {
		return err
	}
	defer front.Close()
	other, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.backend, Net: "unix"})
	if err != nil && ctx.Err() != nil {
		return nil // both are being closed
	}
	if err != nil {
		return fmt.Errorf("connect to backend: %w", err)
	}
	back, err := wire.NewConnUnix(other, "relay")
	if err != nil {
		return err
	}
	defer back.Close()

	r.mu.Lock()
	r.regions, r.begun = nil, false
	clear(r.started)
	r.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pumps errgroup.Group
	pumps.Go(func() error { defer cancel(); return pump(ctx, front, back, r.request) })
	pumps.Go(func() error { defer cancel(); return pump(ctx, back, front, r.reply) })
	pumps.Go(func() error { return r.harvestAll(ctx) })
	return pumps.Wait()
}

// pump passes messages on from one side to the other, and calls look for each before. The
// end of the connection is no error.
func pump(ctx context.Context, from, to *wire.Conn, look func(*wire.Message) error) error {
	for {
		m, err := from.Recv(ctx)
		if err != nil {
			return nil // the other side is closed then, and the test notices
		}
		err = look(m)
		if err == nil && to.Send(ctx, m.Header, m.Payload, m.FDs...) != nil {
			m.Close()
			return nil
		}
		m.Close()
		if err != nil {
			return fmt.Errorf("relay %v: %w", wire.Request(m.Request), err)
		}
	}
}
