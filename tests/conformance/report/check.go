// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Check is a rule and the function that checks it. The function returns if the peer
// kept the rule. It calls T.Failf if the peer broke it, T.Skipf if the rule does not
// apply, and T.Errorf if the check itself could not be made.
type Check struct {
	Rule
	Func func(*T)
}

// Checks is a suite of independent checks.
type Checks struct {
	List []Check
	// Bound is the longest time that one check may take. The context of the check
	// ends then. A check that does not end soon after has failed.
	Bound time.Duration
}

// Rules implements Suite.
func (c *Checks) Rules() []Rule {
	rules := make([]Rule, len(c.List))
	for i, check := range c.List {
		rules[i] = check.Rule
	}
	return rules
}

// Run implements Suite: one check after the other.
func (c *Checks) Run(ctx context.Context, selected []Rule, add func(Result)) error {
	checks := make(map[string]Check, len(c.List))
	for _, check := range c.List {
		checks[check.ID] = check
	}
	for _, r := range selected {
		if ctx.Err() != nil {
			add(Result{Rule: r, Outcome: Error, Detail: "the suite was ended"})
			continue
		}
		add(checks[r.ID].Run(ctx, c.Bound))
	}
	return ctx.Err()
}

// grace is how long a check may go on after the end of its context.
const grace = 2 * time.Second

// Run runs one check. It does not wait any longer for a check that ignores the end of
// its context: the goroutine of that check goes on.
func (c Check) Run(ctx context.Context, bound time.Duration) Result {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	t := &T{ctx: ctx, done: make(chan struct{})}
	start := time.Now()
	go t.run(c.Func)
	select {
	case <-t.done:
	case <-ctx.Done():
		select {
		case <-t.done:
		case <-time.After(grace):
		}
	}
	r := t.result()
	r.Rule, r.Elapsed = c.Rule, time.Since(start)
	return r
}

// T is the state of one check. Its methods may be called by any goroutine. Failf,
// Skipf and Errorf end the goroutine that calls them, so only the goroutine that runs
// the check's function may call these.
type T struct {
	ctx      context.Context
	done     chan struct{}
	mu       sync.Mutex // guards what follows
	ended    bool
	outcome  Outcome
	detail   string
	notes    []string
	cleanups []func()
}

// Context returns a context that ends when the time of the check is over.
func (t *T) Context() context.Context { return t.ctx }

// Failf ends the check: the rule was broken.
func (t *T) Failf(format string, args ...any) { t.end(Fail, fmt.Sprintf(format, args...)) }

// Skipf ends the check: the rule does not apply to this peer.
func (t *T) Skipf(format string, args ...any) { t.end(Skip, fmt.Sprintf(format, args...)) }

// Errorf ends the check: the suite could not find out whether the rule was kept. The
// peer is not the reason.
func (t *T) Errorf(format string, args ...any) { t.end(Error, fmt.Sprintf(format, args...)) }

// Notef adds a line to the result's notes. They are shown unless the check passes.
func (t *T) Notef(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// Cleanup registers f, which is called when the check has ended. The function that was
// registered last is called first.
func (t *T) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *T) end(o Outcome, detail string) {
	t.set(o, detail)
	runtime.Goexit()
}

// set keeps the first verdict.
func (t *T) set(o Outcome, detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended, t.outcome, t.detail = true, o, detail
	}
}

func (t *T) run(f func(*T)) {
	defer close(t.done)
	defer t.cleanup()
	defer func() {
		if p := recover(); p != nil {
			t.Notef("%s", debug.Stack())
			t.set(Error, fmt.Sprintf("the check panicked: %v", p))
		}
	}()
	f(t)
	t.set(Pass, "")
}

func (t *T) cleanup() {
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		f := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		f()
	}
}

func (t *T) result() Result {
	t.set(Fail, "the check did not end in its time")
	t.mu.Lock()
	defer t.mu.Unlock()
	return Result{Outcome: t.outcome, Detail: t.detail, Notes: t.notes}
}
