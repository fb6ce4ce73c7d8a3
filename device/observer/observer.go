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
	// ErrNoMemory says that no frontend has shared a guest's memory.
	ErrNoMemory = errors.New("there is no guest memory: QEMU is not connected, " +
		"or it is too old to share memory before the guest starts the device's driver")
	// ErrNotAlive says that the kernel's clock was not seen to go on in this boot.
	// The guest may have been reset a moment ago.
	ErrNotAlive = errors.New("the kernel's clock has not been seen to go on since the guest " +
		"was started or reset")
)

// Options configure an Observer. The zero value is usable.
type Options struct {
	// Background also looks for the kernel between requests, so that a request
	// need not spend its time on it.
	Background bool

	// Changed is called after each change of what Status returns. It may be nil,
	// must not block, and must not call the Observer.
	Changed func()

	// Logger may be nil.
	Logger *zap.Logger
}

// Observer observes one guest after the other. It is safe for concurrent use.
type Observer struct {
	lg      *zap.Logger
	changed func()
	turn    chan struct{} // holds a token during a search for the kernel
	// maxClaims is the constant maxClaims; tests lower it.
	maxClaims int

	mu         sync.Mutex
	background bool          // whether guests are watched
	guest      *guest        // nil without memory
	boot       uint32        // the frontend's count of resets
	note       uint64        // where the guest says that its note is; 0 if it does not say
	booted     chan struct{} // closed at the next change of boot
	life       *life         // of the kernel that was found last; nil if none
	why        error         // why there is no kernel, or it cannot be used
}

// guest is a guest's memory under one memory table.
type guest struct {
	shared reference
	mem    *physmem.Memory
	ctx    context.Context    // of its watcher
	stop   context.CancelFunc // ends ctx
}

// reference keeps memory valid. [vhostuser.Memory] implements it.
type reference interface {
	Retain()
	Release()
}

// Status is what is known of the kernel. It is empty before the first search.
type Status struct {
	Release string `json:"release,omitempty"` // as uname -r prints it
	// FoundBy is "vmcoreinfo" if the guest said where, or "search".
	FoundBy string `json:"found_by,omitempty"`
	Why     string `json:"why,omitempty"` // why it cannot be used, or was not found
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

// SetMemory sets the guest's memory. nil means that the guest is gone. It must not
// be called during Ask. What is known of the kernel is kept until the guest is
// gone. SetMemory retains m as long as it needs it.
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

// setGuest is SetMemory with the description of the memory; mem may be nil.
func (o *Observer) setGuest(shared reference, mem *physmem.Memory) {
	o.mu.Lock()
	old := o.guest
	if o.guest = nil; mem == nil {
		o.life, o.why = nil, nil
	} else {
		ctx, stop := context.WithCancel(context.Background())
		o.guest = &guest{shared, mem, ctx, stop}
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

// KeepLooking looks for the kernel between requests from now on, as with
// Options.Background.
func (o *Observer) KeepLooking() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.background {
		return
	}
	o.background = true
	if g := o.guest; g != nil {
		g.shared.Retain()
		go o.watch(g.ctx, g)
	}
}

// SetBoot sets the frontend's count of resets of the machine, and of times that
// its memory was replaced. A change forgets the kernel.
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

// SetNote sets the guest-physical address at which the guest says that its
// vmcoreinfo note is, or 0. The next search begins there. A wrong address does no
// harm.
func (o *Observer) SetNote(gpa uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note = gpa
}

// learn calls change with o.mu held, and reports a change of the status.
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
		s.Release, s.FoundBy = o.life.kernel.Release, "search"
		if o.life.told {
			s.FoundBy = "vmcoreinfo"
		}
	}
	if o.why != nil {
		s.Why = o.why.Error()
	}
	return s
}

// physical describes the guest's memory by its files. It is nil without files.
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
	settleTime = time.Second      // from a new memory table or a reset to the first look
	bootTime   = 4 * time.Second  // longest time between the first bootLooks failed looks
	bootLooks  = 30               // a guest may still boot during so many
	maxRetry   = 10 * time.Minute // longest time between later failed looks
	keepTime   = time.Minute      // between looks at a known kernel
	thorough   = 4                // failed looks before every page is read
)

// watch looks for the kernel until ctx ends, so that a request need not search. It
// takes over a reference to the memory.
func (o *Observer) watch(ctx context.Context, g *guest) {
	defer g.shared.Release()
	delay, looks := settleTime, 0
	booted := o.nextBoot()
	for {
		select {
		case <-ctx.Done():
			return
		case <-booted: // also after a reset during the last look
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

// nextBoot returns a channel that is closed at the next change of boot.
func (o *Observer) nextBoot() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.booted
}

// explain reads every page to find a kernel that is refused, and why.
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

// Kernel returns the guest's kernel, and may have to look for it. The kernel is
// proven, but it need not be alive: its guest may have been reset. The kernel and
// its memory are valid until the caller calls release, which is nil with an error.
// The error wraps ErrNoMemory, or one of package introspect.
func (o *Observer) Kernel(ctx context.Context) (k *introspect.Kernel, release func(), err error) {
	l, release, err := o.find(ctx, func(*life) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	return l.kernel, release, nil
}

// ruling is Kernel for a kernel that is alive and in normal operation.
func (o *Observer) ruling(ctx context.Context) (k *introspect.Kernel, release func(), err error) {
	l, release, err := o.find(ctx, func(l *life) error { return l.check(ctx) })
	if err != nil {
		return nil, nil, err
	}
	return l.kernel, release, nil
}

// find looks for the kernel and calls check, one caller at a time. It keeps the
// result unless the guest has changed meanwhile. The caller releases the memory.
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
	g, boot, note, l, why := o.guest, o.boot, o.note, o.life, o.why
	quick := o.background
	if g != nil {
		g.shared.Retain()
	}
	o.mu.Unlock()
	if g == nil {
		return nil, nil, ErrNoMemory
	}
	// Without a watcher nothing else finds out why there is no kernel, so the look
	// must not be quick.
	if l, err = l.renew(ctx, g.mem, note, quick); err == nil {
		err = check(l)
	} else if errors.Is(err, introspect.ErrNotFound) && why != nil {
		err = why // from explain, which reads more
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
