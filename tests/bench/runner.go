// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

const (
	// runTimeout bounds one run. A full guest over 1 Gib/s takes a minute, and
	// emulation some more to fill it.
	runTimeout = 15 * time.Minute
	// bootTimeout is when a boot is given up. Under emulation a guest boots in ten
	// seconds, and on a busy host in half a minute.
	bootTimeout = 3 * time.Minute
)

// runner runs migrations.
type runner struct {
	lab    *lab.Lab
	series guest.Series
	sizes  sizes
	dir    string       // for disk images
	say    func(string) // progress within a run
	pulse  bool         // watch how the guest's work goes
}

// end is one side of a migration: QEMU, and its fbppd where the method has one.
type end struct {
	vm      *vm.VM
	backend *vm.Backend
	closed  bool // by close, and not because QEMU failed
}

// close ends both. It may be called twice.
func (e *end) close() {
	e.closed = true
	if e.vm != nil {
		e.vm.Close()
	}
	if e.backend != nil {
		e.backend.Close()
	}
}

// explain adds to an error that this side's QEMU ended by itself, and its output. It waits
// a moment, because QEMU's sockets close before the process ends.
func (e *end) explain(err error, side string) error {
	if err == nil || e.closed {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	why := e.vm.Wait(ctx)
	if !e.vm.Ended() {
		return err
	}
	return fmt.Errorf("the %s's QEMU ended (%v): %w\n%s", side, why, err, e.vm.Diagnosis())
}

// run makes one migration. An error is in the record.
func (r *runner) run(ctx context.Context, what run) record {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	rec := record{run: what}
	began := time.Now()
	if err := r.measure(ctx, &rec); err != nil {
		rec.Error = err.Error()
	}
	rec.TookMS = time.Since(began).Milliseconds()
	return rec
}

func (r *runner) measure(ctx context.Context, rec *record) (err error) {
	modules := append(rec.Load.modules(), rec.Method.modules()...)
	kernel, err := r.lab.Kernel(r.series).WithModules(ctx, modules...)
	if err != nil {
		return err
	}
	files, err := rec.Load.files(ctx, r.series, r.say)
	if err != nil {
		return err
	}
	policy, err := rec.Method.files(r.dir)
	if err != nil {
		return err
	}
	maps.Copy(policy, files)
	config, err := r.lab.ConfigFor(kernel, r.sizes.Guest, policy)
	if err != nil {
		return err
	}
	if err := rec.Load.configure(ctx, &config, r); err != nil {
		return err
	}
	pool, remove, err := rec.newPool()
	if err != nil {
		return err
	}
	defer remove()
	config.Memory = rec.memory(pool, r.sizes, false)
	source, err := r.boot(ctx, config, rec.benchCase)
	if err != nil {
		return err
	}
	defer source.close()
	defer func() { err = source.explain(err, "source") }()
	r.say("load")
	if err := rec.Load.apply(ctx, source.vm, r.sizes, r.say); err != nil {
		return fmt.Errorf("load the guest: %w", err)
	}
	if r.pulse {
		if _, err := source.vm.StartPulse(ctx, pulsePages, pulseRate); err != nil {
			return err
		}
	}
	r.say("prepare")
	began := time.Now()
	if err := rec.Method.prepare(ctx, source, r.sizes); err != nil {
		return err
	}
	rec.PrepareMS = time.Since(began).Milliseconds()

	config.Memory = rec.memory(pool, r.sizes, true)
	destination, err := r.start(ctx, config, rec.Method, vm.StartIncoming)
	if err != nil {
		return err
	}
	defer destination.close()
	defer func() { err = destination.explain(err, "destination") }()
	return r.migrate(ctx, rec, pool, source, destination)
}

// migrate migrates and fills in the figures.
func (r *runner) migrate(
	ctx context.Context, rec *record, pool string, source, destination *end,
) error {
	r.say("migrate")
	info, err := source.vm.Memory(ctx)
	if err != nil {
		return err
	}
	before, err := readUsage(source.vm.PID())
	if err != nil {
		return err
	}
	transfer := rec.transfer(r.dir)
	if transfer.File != "" {
		defer os.Remove(transfer.File)
	}
	if rec.Transport == hybrid {
		if err := source.vm.SetDevice(ctx, "hybrid", true); err != nil {
			return err
		}
	}
	var watch *pulseWatch
	if r.pulse {
		if watch, err = r.watchPulse(ctx, rec, pool, source.vm, destination.vm); err != nil {
			return err
		}
	}
	began := time.Now()
	lead := leadTime(ctx, destination.vm)
	figures, err := source.vm.MigrateBy(ctx, destination.vm, transfer, rec.switchover(ctx, source.vm))
	if err != nil {
		return err
	}
	if rec.LeadMS, err = lead(); err != nil {
		return err
	}
	if err := rec.setPostcopy(ctx, figures, destination.vm); err != nil {
		return err
	}
	if err := rec.awaitLocal(ctx, destination.vm, began); err != nil {
		return err
	}
	if watch != nil {
		if rec.Pulse, err = watch.end(ctx, rec.LeadMS); err != nil {
			return err
		}
	}
	after, err := readUsage(source.vm.PID())
	if err != nil {
		return err
	}
	arrived, err := readUsage(destination.vm.PID())
	if err != nil {
		return err
	}
	rec.setFigures(figures, info)
	rec.SourceCPUMS = (after.cpu - before.cpu).Milliseconds()
	rec.Resident = arrived.resident
	source.close() // gives its memory back to the host

	r.say("verify")
	report, err := destination.vm.Integrity(ctx, "verify")
	if err != nil {
		return fmt.Errorf("verify the guest's memory: %w", err)
	}
	rec.Verified, rec.Mismatched = report.Verified, report.Mismatched
	if report.Verified == 0 || report.Error != "" {
		return fmt.Errorf("verify the guest's memory: %d pages were looked at: %s",
			report.Verified, report.Error)
	}
	if rec.Method.hints() && rec.HintStatus != "ok" {
		return fmt.Errorf("hints ended with status %q", rec.HintStatus)
	}
	return rec.Load.check(ctx, destination.vm)
}

// transfer returns the settings of the migration.
func (c benchCase) transfer(dir string) vm.Transfer {
	t := vm.Transfer{Bandwidth: int64(c.Link)}
	switch c.Transport {
	case multifd:
		t.Capabilities = []string{"multifd"}
	case mappedRAM:
		t.Capabilities = []string{"mapped-ram"}
		t.File = filepath.Join(dir, "migration.img")
	case postcopy, postcopyLater, hybrid:
		t.Capabilities = []string{"postcopy-ram", "postcopy-blocktime"}
		t.Parameters = map[string]any{"max-postcopy-bandwidth": int64(c.Link)}
	case handOver, arrival:
		t.Capabilities = []string{"x-ignore-shared", "return-path", "postcopy-blocktime"}
		t.Parameters = map[string]any{"max-postcopy-bandwidth": int64(c.Link)}
	}
	return t
}

// boot starts a guest and its programs, and returns when it is ready.
func (r *runner) boot(ctx context.Context, c vm.Config, what benchCase) (source *end, err error) {
	lost := func(error) { r.say("the emulated guest was lost while it booted, once more") }
	err = vm.RetryBoot(c.Accel, lost, func() error {
		r.say("boot")
		source, err = r.bootOnce(ctx, c, what.Method)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err = what.Method.begin(ctx, source); err == nil {
		err = source.vm.StartIntegrity(ctx, what.Load.pool())
	}
	if err != nil {
		source.close()
		return nil, err
	}
	return source, nil
}

// bootOnce starts a guest and waits until it takes orders.
func (r *runner) bootOnce(ctx context.Context, c vm.Config, m method) (*end, error) {
	source, err := r.start(ctx, c, m, vm.Start)
	if err != nil {
		return nil, err
	}
	inTime, cancel := context.WithTimeoutCause(ctx, bootTimeout, vm.ErrHung)
	defer cancel()
	if _, err := source.vm.Boot(inTime); err != nil {
		source.close()
		return nil, err
	}
	return source, nil
}

// start starts one side.
func (r *runner) start(
	ctx context.Context, c vm.Config, m method,
	start func(context.Context, vm.Config) (*vm.VM, error),
) (_ *end, err error) {
	e := &end{}
	if m.hints() {
		if e.backend, err = vm.StartBackend(ctx, r.lab.FBPPD, m.options()...); err != nil {
			return nil, err
		}
	}
	m.configure(&c, e.backend)
	if e.vm, err = start(ctx, c); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}
