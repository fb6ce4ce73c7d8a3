// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/internal/eventfd"
)

// ends calls f, and fails the test if f does not return.
func ends(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("does not end")
	}
}

func TestFullEventfdOfTheFrontendBlocksNobody(t *testing.T) {
	for name, flags := range map[string]int{"blocking": 0, "not blocking": unix.EFD_NONBLOCK} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|flags)
			check(t, err)
			const full = math.MaxUint64 - 1
			_, err = unix.Write(fd, binary.LittleEndian.AppendUint64(nil, full))
			check(t, err)
			var e eventfd.FD
			e.Replace(fd)
			defer e.Replace(-1)
			ends(t, func() {
				for range 2 {
					if err := e.Raise(); err != nil {
						t.Error(err)
					}
				}
			})
			var count [8]byte
			_, err = unix.Read(fd, count[:])
			check(t, err)
			if n := binary.LittleEndian.Uint64(count[:]); n != full {
				t.Errorf("the counter is %#x", n)
			}
			check(t, e.Raise())
			if _, err = unix.Read(fd, count[:]); err != nil || count[0] != 1 {
				t.Errorf("raised once: %d, %v", count[0], err)
			}
		})
	}
}

// A stop waits once for a Kick that hangs, whatever number of messages stops the queue.
func TestAWorkerIsWaitedForOnce(t *testing.T) {
	r := newRig(t, 0)
	core, logged := observer.New(zap.ErrorLevel)
	r.q.lg = zap.New(core)
	w := &worker{quit: make(chan struct{}), done: make(chan struct{})}
	r.q.life.worker = w
	for range 3 {
		r.q.stopWorker()
	}
	if n := logged.Len(); n != 1 || r.q.life.worker != w {
		t.Errorf("given up %d times", n)
	}
	close(w.done)
	r.q.stopWorker()
	if r.q.life.worker != nil {
		t.Error("a worker that has ended is still there")
	}
}

func TestAWorkerThatIsLeftBehindTakesNoKick(t *testing.T) {
	r := newRig(t, 0)
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	check(t, err)
	kick := newKickFD(fd, zap.NewNop())
	defer kick.close()
	w := &worker{quit: make(chan struct{})}
	close(w.quit)
	if err := r.q.waitKick(w, kick); !errors.Is(err, errWorkerQuit) {
		t.Errorf("error %v", err)
	}
	ends(t, func() { check(t, kick.wait()) }) // the kick is kept for the next worker
}

// farFlight is inflight memory whose pages never arrive.
type farFlight struct{ flight }

func (farFlight) load(*Chain, uint16) error { return far{os.ErrDeadlineExceeded} }

type far struct{ error }

func (far) Await(stop <-chan struct{}) error {
	<-stop
	return nil
}

func TestAStopEndsTheWaitForAChainThatWasLeft(t *testing.T) {
	r := newRig(t, 0)
	r.q.flight, r.q.left = farFlight{}, []uint16{0}
	ends(t, func() {
		time.AfterFunc(10*time.Millisecond, func() {
			r.q.mu.Lock()
			defer r.q.mu.Unlock()
			r.q.running = false
			close(r.q.halting)
		})
		if c, err := r.q.Pop(); c != nil || err != nil {
			t.Errorf("popped %v, %v", c, err)
		}
	})
	r.q.flight, r.q.left = nil, nil
}

func TestBuffersThatWereSeenAreSeenAgainWhenTheRingIsBack(t *testing.T) {
	rigDialects(t, func(t *testing.T, features uint64) {
		r := newRig(t, features)
		r.request(t, 8)
		if !r.q.ring.fresh() || r.q.ring.fresh() {
			t.Fatal("a buffer is not new once")
		}
		r.q.mapped = false
		back, err := r.q.attachLocked(r.q.set.addr)
		check(t, err)
		if !back || !r.q.ring.fresh() {
			t.Error("a ring that is polled forgets a buffer")
		}
		check(t, r.q.Push(r.pop(t), 0))
		if r.q.ring.fresh() {
			t.Error("a buffer that was served is new")
		}
	})
}
