// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// mismatchLimit bounds how many mismatches are described; all are counted.
const mismatchLimit = 16

// alwaysReady is a closed channel.
var alwaysReady = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// Pool is checksummed memory that workers keep allocating, writing, verifying and
// freeing. It is safe for concurrent use.
type Pool struct {
	workers []*worker
	stop    chan struct{}
	rate    int // pages a second, 0: no limit
	running sync.WaitGroup

	// turn is held for reading during a worker's step. Verify and Pause hold it
	// for writing, which stops the workers.
	turn sync.RWMutex

	count atomic.Uint64 // pages written or verified, ever: the sign of life
	live  atomic.Int64  // pages that are mapped now

	mu         sync.Mutex
	mismatches []Mismatch // guarded by mu, at most mismatchLimit
	missed     uint64     // guarded by mu: all mismatches
	err        error      // guarded by mu: why a worker gave up
}

// Report is the state of a pool.
type Report struct {
	Count      uint64     `json:"count"`              // pages written or verified since the start
	Live       int64      `json:"live"`               // pages mapped now
	Verified   uint64     `json:"verified,omitempty"` // pages that Verify looked at
	Mismatched uint64     `json:"mismatched"`         // mismatches ever
	Mismatches []Mismatch `json:"mismatches,omitempty"`
	Error      string     `json:"error,omitempty"` // why a worker gave up
}

// PoolOptions say how large and how busy a pool is.
type PoolOptions struct {
	Pages   int    // most pages that are mapped at a time, all workers together
	Workers int    // each needs 64 pages, and has more variety with 4096
	Seed    uint64 // equal seeds give equal sequences of operations
	Rate    int    // pages to write or verify in a second, roughly; 0: no limit
}

// NewPool starts the workers of a pool. The caller closes it.
func NewPool(o PoolOptions) (*Pool, error) {
	if o.Workers < 1 || o.Pages < o.Workers*minWorkerPages || o.Rate < 0 {
		return nil, fmt.Errorf("make pool: %+v: each worker needs %d pages", o, minWorkerPages)
	}
	p := &Pool{stop: make(chan struct{}), rate: o.Rate}
	for i := range o.Workers {
		w := &worker{
			pool:  p,
			limit: o.Pages / o.Workers,
			rand:  rand.New(rand.NewPCG(o.Seed, uint64(i))),
			owner: uint64(i+1) << 48,
		}
		p.workers = append(p.workers, w)
		p.running.Go(func() { p.churn(w) })
	}
	return p, nil
}

// churn runs a worker until the pool is closed.
func (p *Pool) churn(w *worker) {
	done := 0 // pages of the last step
	for {
		select {
		case <-p.stop:
			return
		case <-p.pause(done):
		}
		p.turn.RLock()
		w.done = 0
		err := w.step()
		done = w.done
		p.turn.RUnlock()
		if err != nil {
			p.mu.Lock()
			p.err = errors.Join(p.err, err)
			p.mu.Unlock()
			return
		}
	}
}

// pause returns a channel that is ready when a worker may continue after a step with
// this many pages.
func (p *Pool) pause(pages int) <-chan time.Time {
	if p.rate == 0 {
		return alwaysReady
	}
	return time.After(time.Duration(pages*len(p.workers)) * time.Second / time.Duration(p.rate))
}

// Status returns the state without stopping the workers.
func (p *Pool) Status() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Report{
		Count:      p.count.Load(),
		Live:       p.live.Load(),
		Mismatched: p.missed,
		Mismatches: append([]Mismatch(nil), p.mismatches...),
	}
	if p.err != nil {
		r.Error = p.err.Error()
	}
	return r
}

// Verify stops the workers, compares every page with its last write, and lets the
// workers continue.
func (p *Pool) Verify() Report {
	p.turn.Lock()
	var verified uint64
	for _, w := range p.workers {
		verified += w.verifyAll()
	}
	r := p.Status()
	p.turn.Unlock()
	r.Verified = verified
	return r
}

// Pause stops the workers until the function it returns is called.
func (p *Pool) Pause() (resume func()) {
	p.turn.Lock()
	return p.turn.Unlock
}

// Close stops the workers and unmaps their memory.
func (p *Pool) Close() error {
	close(p.stop)
	p.running.Wait()
	var errs []error
	for _, w := range p.workers {
		errs = append(errs, w.unmapAll())
	}
	return errors.Join(errs...)
}

// mismatch records a page that is wrong.
func (p *Pool) mismatch(m Mismatch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed++
	if len(p.mismatches) < mismatchLimit {
		p.mismatches = append(p.mismatches, m)
	}
}
