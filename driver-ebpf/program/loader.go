// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// LoadLimit is how long a child may take. A load takes three seconds of an emulated processor, and
// on a busy host a guest gets a tenth of one. What a hostile object can use is bounded by childCPU.
const LoadLimit = time.Minute

// Loader loads programs in child processes. Its fields do not change. It is safe for
// concurrent use.
type Loader struct {
	Limits Limits
	// Maps are those that the agent shares with the program, by name. The memory in them
	// is not the object's to choose.
	Maps map[string]*ebpf.Map
	// Constants are what the program is told of this kernel, by the variable's name.
	Constants map[string]uint64
	// Log is told where the time of a load goes. It may be nil.
	Log *zap.Logger
	// KernelCheck returns what the policy wants of the kernel's check of signatures. Nil
	// stands for nothing.
	KernelCheck func() (KernelCheck, error)

	// Spare has a child that may be ready. It may be nil.
	Spare *Spare

	command []string // instead of the agent's own program, for tests
}

// Load loads the object of an offer. The caller closes the result. An error that is the
// kernel's has its log: see VerifierLog.
func (l *Loader) Load(
	ctx context.Context, o *protocol.Offer, object []byte,
) (*ebpf.Program, error) {
	if err := bundle.CheckObject(o, object); err != nil {
		return nil, err
	}
	begun := time.Now()
	ctx, cancel := within(ctx, LoadLimit)
	defer cancel()
	defer l.Spare.renew()
	names, maps, err := l.share()
	defer func() { _ = closeAll(maps) }() // duplicates: nothing is lost with them
	if err != nil {
		return nil, err
	}
	text, err := l.request(o, object, names)
	if err != nil {
		return nil, err
	}
	c, ready, err := l.hand(ctx, text, maps)
	if err != nil {
		return nil, err
	}
	start := time.Since(begun)
	a, prog, err := c.result(ctx, contracts[o.Kind].of)
	if err != nil {
		return nil, err
	}
	if l.Log != nil {
		a.Times.log(l.Log, time.Since(begun), start, ready)
	}
	if a.Error != "" {
		return nil, &refusedError{a.Error, a.Log}
	}
	return prog, nil
}

// request is what a child is told.
func (l *Loader) request(o *protocol.Offer, object []byte, maps []string) (text []byte, err error) {
	r := request{Kind: o.Kind, Limits: l.Limits, Constants: l.Constants,
		Maps: maps, Object: object}
	if l.KernelCheck != nil {
		// A file that is no certificate must not keep other programs from being loaded.
		if r.KernelCheck, err = l.KernelCheck(); err != nil && r.KernelCheck.Required {
			return nil, err
		} else if err != nil && l.Log != nil {
			l.Log.Warn("certificates for the kernel are left out", zap.Error(err))
		}
	}
	return r.encode()
}

// hand finds a child that takes the request: the one that is ready, or a new one. No object was
// looked at before, so the one that was ready, and failed, cannot be the object's fault.
func (l *Loader) hand(
	ctx context.Context, text []byte, maps []*os.File,
) (c *child, ready bool, err error) {
	if c := l.Spare.take(); c != nil {
		soon, cancel := within(ctx, l.Spare.limit)
		defer cancel()
		err := c.ask(soon, text, maps)
		if err == nil {
			return c, true, nil
		}
		c.stop()
		if l.Log != nil {
			l.Log.Warn("the loader that was ready is of no use", zap.Error(err))
		}
	}
	if c, err = startChild(l.command); err != nil {
		return nil, false, err
	}
	if err := c.ask(ctx, text, maps); err != nil {
		c.stop()
		return nil, false, err
	}
	return c, false, nil
}

// within limits what a child may take, and says so to whoever waits for it.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v", limit))
}

// share duplicates the descriptors of the maps. The caller closes them, also after an error.
func (l *Loader) share() (names []string, files []*os.File, err error) {
	for name, m := range l.Maps {
		fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, files, fmt.Errorf("share map %s: %w", name, err)
		}
		names, files = append(names, name), append(files, os.NewFile(uintptr(fd), name))
	}
	return names, files, nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
