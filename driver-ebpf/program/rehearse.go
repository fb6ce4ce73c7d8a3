// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// A rehearsal does with the agent's own walk what a load does, in the agent and in its child. The
// load then finds its code and the types in memory, and knows what the kernel can do. What runs for
// the first time takes long, most of all on an emulated processor.

// rehearse is the child's part. The process makes itself small before it. What the rehearsal uses
// stays with the process: to get that memory again would take a load as long as all else of it.
func (k *kernelTypes) rehearse(conn *net.UnixConn) error {
	_, _ = k.get() // the load says what is wrong
	debug.FreeOSMemory()
	if err := k.serve(conn, func() error { return nil }); err != nil {
		return fmt.Errorf("rehearse a load: %w", err)
	}
	runtime.GC() // the agent has it not run by itself: GOGC
	return nil
}

// shorten has a rehearsal load a program that only returns. To verify the walk would take longer
// than all else. It gets no maps of the agent, and so makes small ones.
func shorten(spec *ebpf.CollectionSpec, kind protocol.ProgramKind, types *btf.Spec) error {
	c := contracts[kind]
	p := spec.Programs[c.program]
	var relocations []*btf.CORERelocation
	for i := range p.Instructions {
		if r := btf.CORERelocationMetadata(&p.Instructions[i]); r != nil {
			relocations = append(relocations, r)
		}
	}
	var own btf.Builder
	_, err := btf.CORERelocate(relocations, []*btf.Spec{types}, p.ByteOrder, own.Add)
	if err != nil {
		return fmt.Errorf("relocate: %w", err)
	}
	first := asm.Mov.Imm(asm.R0, 0)
	first.Metadata = p.Instructions[0].Metadata // the function that it begins
	p.Instructions = asm.Instructions{first, asm.Return()}
	for _, name := range c.shared {
		spec.Maps[name].MaxEntries = 1
	}
	return nil
}

// rehearse is the agent's part. It returns what the child says of the walk. Whatever that is, a
// child that answers is ready.
func (c *child) rehearse(ctx context.Context, walk []byte) (refusal string, err error) {
	r := request{Kind: protocol.KindWalk, Rehearsal: true, Object: walk}
	if err := r.Limits.complete(); err != nil {
		return "", err
	}
	text, err := r.encode()
	if err != nil {
		return "", err
	}
	if err := c.ask(ctx, text, nil); err != nil {
		return "", err
	}
	a, prog, err := c.hear(ctx, contracts[r.Kind].of)
	if prog != nil {
		err = prog.Close()
	}
	return a.Error, err
}
