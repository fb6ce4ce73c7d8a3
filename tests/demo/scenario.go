// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// pool sizes the guest's integrity program. It writes little during the migration, because
// these pages are sent again, which would hide the effect of free pages.
func pool() memory.PoolOptions {
	return memory.PoolOptions{Pages: 8192, Seed: 1, Rate: 500}
}

// scenario runs the demo.
type scenario struct {
	lab  *lab.Lab
	plan plan
	out  *screen
}

// run migrates once with each method.
func (s *scenario) run(ctx context.Context) (*results, error) {
	r := &results{plan: s.plan, accel: string(s.lab.Accel)}
	for _, method := range []method{stock, fbpp} {
		run, err := s.migrate(ctx, method)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
		r.Runs = append(r.Runs, *run)
	}
	r.conclude()
	return r, nil
}

// migrate boots a guest, has it use and free its memory, and migrates it.
func (s *scenario) migrate(ctx context.Context, m method) (*outcome, error) {
	config, err := s.lab.Config(s.plan.series, s.plan.guestMiB, nil)
	if err != nil {
		return nil, err
	}
	s.out.line("\n%s", m.title())
	var source *end
	var release string
	lost := func(error) { s.out.line("  The emulated guest died while it booted; once more.") }
	err = vm.RetryBoot(config.Accel, lost, func() error {
		source, release, err = s.boot(ctx, config)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer source.close()
	if err := s.fill(ctx, source.vm); err != nil {
		return nil, err
	}
	if err := source.vm.SetDevice(ctx, "hints", m == fbpp); err != nil {
		return nil, err
	}

	s.out.step("start the destination")
	destination, err := s.end(ctx, config, vm.StartIncoming)
	if err != nil {
		return nil, err
	}
	defer destination.close()

	s.out.step("migrate")
	info, err := source.vm.Memory(ctx)
	if err != nil {
		return nil, err
	}
	before, err := source.vm.Integrity(ctx, "status")
	if err != nil {
		return nil, err
	}
	figures, err := source.vm.Migrate(ctx, destination.vm, s.migrationProgress)
	if err != nil {
		return nil, err
	}
	s.out.done(fmt.Sprintf("%s sent", size(figures.RAM.Transferred)))
	source.close() // gives its memory back to the host

	check, err := s.check(ctx, destination.vm, before)
	if err != nil {
		return nil, err
	}
	return newOutcome(m, release, figures, info, check), nil
}

// bootTimeout bounds a boot that hangs; under emulation it takes ten seconds.
const bootTimeout = 3 * time.Minute

// boot starts a guest and its programs, and returns when it is ready.
func (s *scenario) boot(ctx context.Context, c vm.Config) (_ *end, release string, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	s.out.step("boot the guest")
	source, err := s.end(ctx, c, vm.Start)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			source.close()
		}
	}()
	if release, err = source.vm.Boot(ctx); err != nil {
		return nil, "", err
	}
	if err := source.vm.Spawn(ctx, "agent", lab.AgentPath); err != nil {
		return nil, "", err
	}
	if state, err := source.backend.AwaitDriver(ctx); err != nil || state != "ready" {
		return nil, "", fmt.Errorf("start the agent: its state is %q (%v)\n%s",
			state, err, source.backend.Log())
	}
	if err := source.vm.StartIntegrity(ctx, pool()); err != nil {
		return nil, "", err
	}
	s.out.done("Linux " + release)
	return source, release, nil
}

// fill has the guest write and free memory, and shows the progress.
func (s *scenario) fill(ctx context.Context, v *vm.VM) error {
	s.out.step(fmt.Sprintf("fill %s and give them back", gib(s.plan.fillMiB)))
	before, err := v.Memory(ctx)
	if err != nil {
		return err
	}
	filled := make(chan error, 1)
	go func() {
		_, err := v.Fill(ctx, s.plan.fillMiB)
		filled <- err
	}()
	for {
		select {
		case err := <-filled:
			return err
		case <-time.After(500 * time.Millisecond):
		}
		now, err := v.Memory(ctx)
		if err != nil {
			return err
		}
		used := max(before.Free-now.Free, 0) / pageMiB
		s.out.progress("%d %%", min(used*100/int64(s.plan.fillMiB), 100))
	}
}

// migrationProgress shows how far a migration is.
func (s *scenario) migrationProgress(m *vm.Migration) {
	if m.RAM.Total == 0 {
		return
	}
	s.out.progress("%s sent, %s to look at", size(m.RAM.Transferred), size(m.RAM.Remaining))
}

// check has the guest verify its memory on the destination, and waits until its integrity
// program continues.
func (s *scenario) check(ctx context.Context, v *vm.VM, before memory.Report) (*integrity, error) {
	s.out.step("check the guest's memory on the destination")
	verified, err := v.Integrity(ctx, "verify")
	if err != nil {
		return nil, err
	}
	after := verified
	for after.Count == verified.Count {
		time.Sleep(10 * time.Millisecond)
		if after, err = v.Integrity(ctx, "status"); err != nil {
			return nil, err
		}
	}
	s.out.done(fmt.Sprintf("%d pages, %d mismatches", verified.Verified, verified.Mismatched))
	return &integrity{
		CountBefore:   before.Count,
		CountAfter:    after.Count,
		VerifiedPages: verified.Verified,
		Mismatches:    verified.Mismatched,
	}, nil
}

// end is one side of a migration: QEMU and its fbppd.
type end struct {
	vm      *vm.VM
	backend *vm.Backend
}

func (s *scenario) end(
	ctx context.Context, c vm.Config,
	start func(context.Context, vm.Config) (*vm.VM, error),
) (*end, error) {
	backend, err := vm.StartBackend(ctx, s.lab.FBPPD)
	if err != nil {
		return nil, err
	}
	c.Backend = backend.Socket
	v, err := start(ctx, c)
	if err != nil {
		backend.Close()
		return nil, err
	}
	return &end{vm: v, backend: backend}, nil
}

// close ends both. It may be called twice.
func (e *end) close() {
	e.vm.Close()
	e.backend.Close()
}
