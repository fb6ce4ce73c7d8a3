// SPDX-License-Identifier: Apache-2.0

// Package inject lets the agent use programs of the host: it joins the policy and the loader of
// package program with the snapshot of package freepages, and with those that run over the guest's
// pages, of packages pagecensus and workingset.
package inject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/freepages"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/program"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// Programs implements [agent.Programs] on a snapshot. [New] makes one.
type Programs struct {
	lg       *zap.Logger
	judge    *program.Judge
	loader   *program.Loader
	snapshot snapshot
	builtIn  agent.Guest // what the guest says without a program of the host

	turn pagerun.Turn // of all programs that run over pages

	mu   sync.Mutex                    // guards what follows, which goroutines of their own use
	kept map[protocol.ProgramKind]kept // those in use, but for the walk
	// endless are programs of which a run did not end. They are not loaded again.
	endless map[protocol.Digest]struct{}
}

// snapshot is what Programs needs of a [freepages.Snapshot].
type snapshot interface {
	walk.Walker
	Use(prog *ebpf.Program, allowed func(function string) bool, commit func() error) error
	Restore() error
	CanWalk() bool
}

var _ snapshot = (*freepages.Snapshot)(nil)

// errNoWalk is what the host is told when no program could be attached.
var errNoWalk = errors.New("no walk is attached: a program failed, and so did the way back")

var _ agent.Programs = (*Programs)(nil)

// New returns the programs that a policy takes. The snapshot stays the caller's, who calls Close.
func New(
	judge *program.Judge, snapshot *freepages.Snapshot, builtIn agent.Guest, lg *zap.Logger,
) (*Programs, error) {
	version, err := features.LinuxVersionCode()
	if err != nil {
		return nil, fmt.Errorf("find kernel version: %w", err)
	}
	constants := maps.Clone(snapshot.Constants())
	constants["kernel_version"] = uint64(version)
	p := &Programs{
		lg: lg, judge: judge, snapshot: snapshot, builtIn: builtIn,
		turn: pagerun.NewTurn(), kept: make(map[protocol.ProgramKind]kept),
		endless: make(map[protocol.Digest]struct{}),
		loader: &program.Loader{
			Limits: judge.Policy.Limits, Maps: snapshot.Shared(), Constants: constants,
			Log:         lg,
			KernelCheck: judge.Policy.KernelCheck,
			Spare:       program.NewSpare(judge.Policy.ReadyLoader, freepages.Object(), lg),
		},
	}
	if judge.Policy.ReadyLoader {
		p.loader.Spare.Prepare()
	}
	return p, nil
}

// Close ends the loader that is ready, if there is one. The programs stay in use.
func (p *Programs) Close() { p.loader.Spare.Close() }

// Accepts implements [agent.Programs].
func (p *Programs) Accepts() protocol.Accepts {
	return protocol.Accepts{
		Kinds: p.judge.Policy.Mask(), MaxSize: p.judge.Policy.Limits.ObjectBytes,
	}
}

// Check implements [agent.Programs].
func (p *Programs) Check(o *protocol.Offer, nonce uint64) error { return p.judge.Check(o, nonce) }

// Prepare implements [agent.Programs]: a loader starts, and reads the kernel's types, while the
// object is on its way.
func (p *Programs) Prepare() { go p.loader.Spare.Expect() }

// Load implements [agent.Programs].
func (p *Programs) Load(
	ctx context.Context, o *protocol.Offer, object []byte,
) (io.Closer, error) {
	if o.Kind != protocol.KindWalk {
		return p.loadOverPages(ctx, o, object)
	}
	prog, err := p.loader.Load(ctx, o, object)
	if err != nil {
		return nil, err // not prog, as above
	}
	return prog, nil
}

// Use implements [agent.Programs]. A version counts as accepted when its program has passed
// its trial: one that does not work must not bar the one before. The policy is asked once more
// then, because the load has taken its time.
func (p *Programs) Use(
	o *protocol.Offer, nonce uint64, loaded io.Closer,
) (agent.Guest, walk.Walker, error) {
	prog, ok := loaded.(*ebpf.Program)
	if !ok {
		guest, walker := p.now()
		return guest, walker, errors.Join(fmt.Errorf("use %T as a walk", loaded), loaded.Close())
	}
	err := p.snapshot.Use(prog, p.judge.Policy.Limits.AllowsHook, func() error {
		return p.accept(o, nonce)
	})
	guest, walker := p.now()
	return guest, walker, err
}

// accept asks the policy once more, and remembers the version.
func (p *Programs) accept(o *protocol.Offer, nonce uint64) error {
	if err := p.judge.Check(o, nonce); err != nil {
		return err
	}
	return p.judge.Accept(o)
}

// Restore implements [agent.Programs].
func (p *Programs) Restore() (agent.Guest, walk.Walker, error) {
	err := p.snapshot.Restore()
	guest, walker := p.now()
	return guest, walker, err
}

// now describes the guest with the program that is attached.
func (p *Programs) now() (agent.Guest, walk.Walker) {
	guest := p.builtIn
	if !p.snapshot.CanWalk() {
		if guest.Status == protocol.StatusOK { // it is not: there is a built-in program, too
			guest.Status, guest.Hello.Reason = protocol.StatusFailed, errNoWalk.Error()
		}
		return guest, nil
	}
	guest.Status, guest.Hello.Reason = protocol.StatusOK, ""
	return guest, p.snapshot
}
