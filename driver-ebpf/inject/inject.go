// SPDX-License-Identifier: Apache-2.0

// Package inject lets the agent walk with programs of the host: it joins the policy and the
// loader of package program with the snapshot of package freepages.
package inject

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/freepages"
	"github.com/fbpp-project/fbpp/driver-ebpf/program"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// Programs implements [agent.Programs] on a snapshot. [New] makes one.
type Programs struct {
	judge    *program.Judge
	loader   *program.Loader
	snapshot *freepages.Snapshot
	builtIn  agent.Guest // what the guest says without a program of the host
}

var _ agent.Programs = (*Programs)(nil)

// New returns the programs that a policy takes. The snapshot stays the caller's.
func New(judge *program.Judge, snapshot *freepages.Snapshot, builtIn agent.Guest) *Programs {
	return &Programs{
		judge: judge, snapshot: snapshot, builtIn: builtIn,
		loader: &program.Loader{
			Limits: judge.Policy.Limits,
			Maps:   snapshot.Shared(), Constants: snapshot.Constants(),
		},
	}
}

// Accepts implements [agent.Programs].
func (p *Programs) Accepts() protocol.Accepts {
	return protocol.Accepts{
		Kinds: p.judge.Policy.Mask(), MaxSize: p.judge.Policy.Limits.ObjectBytes,
	}
}

// Check implements [agent.Programs].
func (p *Programs) Check(o *protocol.Offer, nonce uint64) error { return p.judge.Check(o, nonce) }

// Load implements [agent.Programs].
func (p *Programs) Load(
	ctx context.Context, o *protocol.Offer, object []byte,
) (io.Closer, error) {
	prog, err := p.loader.Load(ctx, o, object)
	if err != nil {
		return nil, err // not prog, which would be an interface that is not nil
	}
	return prog, nil
}

// Use implements [agent.Programs]. A version counts as accepted when its program has passed
// its trial: one that does not work must not bar the one before.
func (p *Programs) Use(o *protocol.Offer, loaded io.Closer) (agent.Guest, walk.Walker, error) {
	prog, ok := loaded.(*ebpf.Program)
	if !ok {
		guest, walker := p.now()
		return guest, walker, errors.Join(fmt.Errorf("use %T as a walk", loaded), loaded.Close())
	}
	err := p.snapshot.Use(prog, p.judge.Policy.Limits.AllowsHook, func() error {
		return p.judge.Accept(o)
	})
	guest, walker := p.now()
	return guest, walker, err
}

// Restore implements [agent.Programs].
func (p *Programs) Restore() (agent.Guest, walk.Walker, error) {
	err := p.snapshot.Use(nil, nil, nil)
	guest, walker := p.now()
	return guest, walker, err
}

// now describes the guest with the program that is attached.
func (p *Programs) now() (agent.Guest, walk.Walker) {
	if !p.snapshot.CanWalk() {
		return p.builtIn, nil
	}
	guest := p.builtIn
	guest.Status, guest.Hello.Reason = protocol.StatusOK, ""
	return guest, p.snapshot
}
