// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Errors about the kernel, beside those of package introspect.
var (
	// ErrNoMemory says that no guest has shared its memory.
	ErrNoMemory = errors.New("there is no guest memory: QEMU is not connected, " +
		"or it is too old to share memory before the guest starts the device's driver")
	// ErrNotAlive says that the kernel has not been seen at work in this boot. The
	// guest may have been reset a moment ago.
	ErrNotAlive = errors.New("the kernel's clock has not been seen to go on since the guest " +
		"was started or reset")
)

// Options configure an Observer. The zero value is usable.
type Options struct {
	// Background looks for the kernel before anybody asks, so that a request need
	// not.
	Background bool

	// Changed is called after each change of what Status returns. It may be nil,
	// must not block, and must not call the Observer.
	Changed func()

	// Logger may be nil.
	Logger *zap.Logger
}

// Observer watches one guest after the other. Its methods may be called from any
// goroutine.
type Observer struct {
	lg      *zap.Logger
	changed func()
	turn    chan struct{} // holds a token while somebody looks for the kernel
	// maxClaims bounds the blocks that wait to be proven.
	maxClaims  int
	background bool

	mu     sync.Mutex
	guest  *guest        // nil without memory
	boot   uint32        // of the machine, as the frontend counts
	booted chan struct{} // closed at the next change of boot
	life   *life         // of the kernel that was found last; nil before
	why    error         // why there is none
}

// guest is a guest's memory under one memory table.
type guest struct {
	shared reference
	mem    *physmem.Memory
	stop   context.CancelFunc // of its watcher
}

// reference keeps memory valid; [vhostuser.Memory] is one.
type reference interface {
	Retain()
	Release()
}

// Status is what is known of the kernel.
type Status struct {
	Release string `json:"release,omitempty"` // as uname -r prints it
	Why     string `json:"why,omitempty"`     // why it cannot be used, or none is known
}

// New returns an Observer without a guest.
func New(o Options) *Observer {
	ob := &Observer{
		lg: o.Logger, changed: o.Changed, turn: make(chan struct{}, 1), maxClaims: maxClaims,
		background: o.Background, booted: make(chan struct{}),
	}
	if ob.lg == nil {
		ob.lg = zap.NewNop()
	}
	if ob.changed == nil {
		ob.changed = func() {}
	}
	return ob
}

// SetMemory gives the guest's memory, or nil, which ends the guest. It must not
// be called during Ask. What was learned of the kernel is kept from one table of
// a guest to the next.
func (o *Observer) SetMemory(m *vhostuser.Memory) {
	var mem *physmem.Memory
	if m != nil {
		var err error
		if mem, err = physical(m); err != nil {
			o.lg.Warn("the guest's memory cannot be looked at", zap.Error(err))
		}
	}
	o.setGuest(m, mem)
}

// setGuest is SetMemory for memory that is described already, or not at all.
func (o *Observer) setGuest(shared reference, mem *physmem.Memory) {
	o.mu.Lock()
	old := o.guest
	if o.guest = nil; mem == nil {
		o.life, o.why = nil, nil
	} else {
		ctx, stop := context.WithCancel(context.Background())
		o.guest = &guest{shared, mem, stop}
		shared.Retain()
		if o.background {
			shared.Retain()
			go o.watch(ctx, o.guest)
		}
	}
	o.mu.Unlock()
	if old != nil {
		old.stop()
		old.shared.Release()
	}
	o.changed()
}

// SetBoot says how often the machine was reset by now, or its memory replaced.
func (o *Observer) SetBoot(n uint32) {
	o.learn(func() {
		if n == o.boot {
			return
		}
		o.boot, o.life, o.why = n, nil, nil
		close(o.booted)
		o.booted = make(chan struct{})
	})
}

// learn has change note what was learned, with o.mu held, and tells of news.
func (o *Observer) learn(change func()) {
	o.mu.Lock()
	before := o.status()
	change()
	now := o.status()
	o.mu.Unlock()
	if now != before {
		o.changed()
	}
}

// Status returns what is known now.
func (o *Observer) Status() Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status()
}

// status is Status with o.mu held.
func (o *Observer) status() Status {
	var s Status
	if o.life != nil {
		s.Release = o.life.kernel.Release
	}
	if o.why != nil {
		s.Why = o.why.Error()
	}
	return s
}

// physical describes the guest's memory by its files, or is nil where there are
// none.
func physical(m *vhostuser.Memory) (*physmem.Memory, error) {
	var regions []physmem.Region
	for _, f := range m.Files() {
		regions = append(regions, physmem.Region{
			GPA: f.Addr, Size: f.Size, Source: physmem.FD(f.FD), Offset: int64(f.Offset),
		})
	}
	if len(regions) == 0 {
		return nil, nil
	}
	return physmem.New(regions)
}

// Times of the watcher.
const (
	settleTime = time.Second     // from a new memory table to the first look
	bootTime   = 4 * time.Second // the longest between looks, as long as a guest may boot
	bootLooks  = 30
	maxRetry   = 10 * time.Minute // and then
	keepTime   = time.Minute      // between looks at a kernel that is known
	thorough   = 4                // looks in vain before every page is looked at
)

// watch keeps the kernel known until ctx ends, so that a request need not search.
// It takes over a reference to the memory.
func (o *Observer) watch(ctx context.Context, g *guest) {
	defer g.shared.Release()
	delay, looks := settleTime, 0
	booted := o.nextBoot()
	for {
		select {
		case <-ctx.Done():
			return
		case <-booted: // a reset in the middle of a look is seen here, too
			delay, looks = settleTime, 0
			booted = o.nextBoot()
			continue
		case <-time.After(delay):
		}
		before := o.Status()
		_, release, err := o.ruling(ctx)
		if err == nil {
			release()
			delay, looks = keepTime, 0
		} else if ctx.Err() == nil {
			if looks++; looks == thorough {
				o.explain(ctx, g.mem)
			}
			if delay = min(2*delay, maxRetry); looks < bootLooks {
				delay = min(delay, bootTime)
			}
		}
		if now := o.Status(); now != before {
			o.lg.Info("looked for the guest's kernel", zap.String("release", now.Release),
				zap.String("why_not", now.Why))
		}
	}
}

// nextBoot returns what is closed at the next change of boot.
func (o *Observer) nextBoot() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.booted
}

// explain looks at every page for a kernel that is refused, to say why.
func (o *Observer) explain(ctx context.Context, mem *physmem.Memory) {
	o.mu.Lock()
	boot := o.boot
	o.mu.Unlock()
	_, err := introspect.Locate(ctx, mem, introspect.Options{})
	o.learn(func() {
		if err != nil && ctx.Err() == nil && boot == o.boot && o.life == nil {
			o.why = err
		}
	})
}

// Kernel returns the guest's kernel, which it may have to look for: one that has
// proven itself, alive or not. The caller releases it. The error says why there is
// none.
func (o *Observer) Kernel(ctx context.Context) (k *introspect.Kernel, release func(), err error) {
	l, release, err := o.find(ctx, func(*life) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	return l.kernel, release, nil
}

// ruling is Kernel for one that rules the memory now.
func (o *Observer) ruling(ctx context.Context) (k *introspect.Kernel, release func(), err error) {
	l, release, err := o.find(ctx, func(l *life) error { return l.check(ctx) })
	if err != nil {
		return nil, nil, err
	}
	return l.kernel, release, nil
}

// find looks for the kernel, one caller at a time, has it checked, and keeps what
// comes of it unless the guest is another by then. The caller releases the memory.
func (o *Observer) find(
	ctx context.Context, check func(*life) error,
) (_ *life, release func(), err error) {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("look for the guest's kernel: %w", context.Cause(ctx))
	}
	o.mu.Lock()
	g, boot, l, why := o.guest, o.boot, o.life, o.why
	if g != nil {
		g.shared.Retain()
	}
	o.mu.Unlock()
	if g == nil {
		return nil, nil, ErrNoMemory
	}
	// Where nobody has looked before, who asks wants to know why there is none.
	if l, err = l.renew(ctx, g.mem, o.background); err == nil {
		err = check(l)
	} else if errors.Is(err, introspect.ErrNotFound) && why != nil {
		err = why // which says more
	}
	o.learn(func() {
		if boot == o.boot && g == o.guest && ctx.Err() == nil {
			o.life, o.why = l, err
		}
	})
	if err != nil {
		g.shared.Release()
		return nil, nil, err
	}
	return l, g.shared.Release, nil
}
