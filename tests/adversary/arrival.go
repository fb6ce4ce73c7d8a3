// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"fmt"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// Arrive plays a round in which memory stays in a pool and arrives at the destination from there,
// but for what the guest has called free. The pool is a file that is not there yet. Before the
// round the guest moves into it, and is not asked. The result has nothing that was seen from
// outside: when all of the memory is there, the guest has run.
func (g *Guest) Arrive(ctx context.Context, r Round, pool string) (*Result, *vm.Load, error) {
	memory := fmt.Sprintf("memory-backend-file,id=ram,size=%dM,share=on,lease=on,mem-path=%s",
		g.config.MemoryMiB, pool)
	if err := g.vm.SetDevice(ctx, "hints", false); err != nil {
		return nil, nil, err
	}
	if _, err := g.move(ctx, memory, r.clearShift(), vm.Transfer{}, nil); err != nil {
		return nil, nil, fmt.Errorf("move to the pool: %w", err)
	}
	if err := g.prepare(ctx, r); err != nil {
		return nil, nil, err
	}
	handover := vm.Transfer{
		Capabilities: []string{"x-ignore-shared", "return-path"},
		Parameters:   map[string]any{"max-postcopy-bandwidth": 1 << 20},
	}
	memory = fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on,pool=%s",
		g.config.MemoryMiB, pool)
	result := new(Result)
	var err error
	rate := measureRate(ctx, g.vm, r.DirtyRate)
	if result.Migration, err = g.move(ctx, memory, nil, handover, rate); err != nil {
		return nil, nil, fmt.Errorf("hand over: %w", err)
	}
	// By turns: the guest fetches all of it, or finds it there.
	fetches := r.Seed%2 == 1
	if fetches {
		if err := g.verify(ctx, result); err != nil {
			return nil, nil, err
		}
	}
	load, err := g.arrived(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !fetches {
		if err := g.verify(ctx, result); err != nil {
			return nil, nil, err
		}
	}
	return result, load, g.awaitDriver(ctx)
}

// move migrates the guest to a QEMU with this memory backend.
func (g *Guest) move(
	ctx context.Context, memory string, options []string, by vm.Transfer,
	progress func(*vm.Migration),
) (*vm.Migration, error) {
	source, config := *g, g.config
	defer source.Close()
	g.config.Memory = []string{memory}
	err := g.start(ctx, vm.StartIncoming, options)
	g.config = config
	if err != nil {
		return nil, err
	}
	m, err := source.vm.MigrateBy(ctx, g.vm, by, progress)
	if err != nil {
		return nil, fmt.Errorf("%w\nfbppd: %s", err, source.backendLog())
	}
	return m, nil
}

// arrived lets all of the memory arrive, and readies the guest for an ordinary migration.
func (g *Guest) arrived(ctx context.Context) (*vm.Load, error) {
	fast := map[string]any{"max-postcopy-bandwidth": 0}
	if err := g.vm.Execute(ctx, "migrate-set-parameters", fast, nil); err != nil {
		return nil, err
	}
	m, err := g.vm.WaitMigration(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("wait for memory to arrive: %w", err)
	}
	if m.Status != "completed" || m.Load == nil {
		return nil, fmt.Errorf("memory has not arrived: %+v\n%s", m, g.vm.Diagnosis())
	}
	off := map[string]any{"capabilities": []map[string]any{
		{"capability": "x-ignore-shared", "state": false},
	}}
	return m.Load, g.vm.Execute(ctx, "migrate-set-capabilities", off, nil)
}
