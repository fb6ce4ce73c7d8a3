// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// grower runs the steps.
type grower struct {
	runner
	mu  sync.Mutex
	out io.Writer
}

// tell may be called from several goroutines.
func (g *grower) tell(line string) {
	if line == "boot" {
		return // there may be many
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintln(g.out, "    "+line)
}

// pair is both ends of one guest's migration.
type pair struct {
	source, destination *end
	before, after       usage // of the source's fbppd
	figures             *vm.Migration
}

func (p *pair) close() {
	for _, e := range []*end{p.source, p.destination} {
		if e != nil {
			e.close()
		}
	}
}

// bootsAtOnce bounds how many guests boot beside each other: more are slower in sum.
const bootsAtOnce = 2

// growthTimeout bounds one run: the boots of all guests are most of it.
const growthTimeout = 40 * time.Minute

// run runs a step. An error is in the result.
func (g *grower) run(ctx context.Context, s step, round int) growth {
	ctx, cancel := context.WithTimeout(ctx, growthTimeout)
	defer cancel()
	one := growth{step: s, Round: round}
	n, _, _ := s.guests()
	pairs := make([]pair, n)
	defer func() {
		for i := range pairs {
			pairs[i].close()
		}
	}()
	if err := g.measureAll(ctx, s, pairs); err != nil {
		one.Error = err.Error()
		return one
	}
	if err := one.fill(pairs); err != nil {
		one.Error = err.Error()
	}
	return one
}

// measureAll boots all guests, and then migrates them at once.
func (g *grower) measureAll(ctx context.Context, s step, pairs []pair) error {
	_, mib, cpus := s.guests()
	what := benchCase{Load: fresh, Method: fbpp, Transport: stream}
	config, err := g.lab.ConfigFor(g.lab.Kernel(g.series), mib, nil)
	if err != nil {
		return err
	}
	config.CPUs = cpus
	// Many guests at once are slow, and the time is what is to be measured.
	config.Device = map[string]string{"hint-timeout": "60000"}
	boots, booting := errgroup.WithContext(ctx)
	boots.SetLimit(bootsAtOnce)
	for i := range pairs {
		p := &pairs[i]
		boots.Go(func() (err error) {
			if p.source, err = g.boot(booting, config, what); err != nil {
				return err
			}
			p.destination, err = g.start(booting, config, what.Method, vm.StartIncoming)
			return err
		})
	}
	if err := boots.Wait(); err != nil {
		return err
	}
	g.tell("migrate")
	moves, moving := errgroup.WithContext(ctx)
	for i := range pairs {
		p := &pairs[i]
		moves.Go(func() error { return p.migrate(moving) })
	}
	return moves.Wait()
}

// migrate migrates one guest, and checks what arrived.
func (p *pair) migrate(ctx context.Context) (err error) {
	defer func() { err = p.source.explain(err, "source") }()
	defer func() { err = p.destination.explain(err, "destination") }()
	if p.before, err = readUsage(p.source.backend.PID()); err != nil {
		return err
	}
	if p.figures, err = p.source.vm.Migrate(ctx, p.destination.vm, nil); err != nil {
		return err
	}
	if p.after, err = readUsage(p.source.backend.PID()); err != nil {
		return err
	}
	if status := p.figures.HintStatus(); status != "ok" {
		return fmt.Errorf("hints ended with status %q", status)
	}
	report, err := p.destination.vm.Integrity(ctx, "verify")
	if err != nil {
		return fmt.Errorf("verify the guest's memory: %w", err)
	}
	if report.Verified == 0 || report.Mismatched != 0 || report.Error != "" {
		return fmt.Errorf("verify the guest's memory: %d pages, %d of them damaged: %s",
			report.Verified, report.Mismatched, report.Error)
	}
	return nil
}

// fill takes the medians over all guests.
func (one *growth) fill(pairs []pair) error {
	of := func(f func(*pair) int64) float64 {
		var v []float64
		for i := range pairs {
			v = append(v, float64(f(&pairs[i])))
		}
		return newSpread(v).Median
	}
	phase := func(name string) float64 {
		return of(func(p *pair) int64 { return p.figures.Hints.Phase(name) })
	}
	one.WakeupUS = phase(source.PhaseWakeup)
	one.WalkUS, one.DecodeUS = phase(source.PhaseWalk), phase(source.PhaseDecode)
	one.ExchangeUS = of(func(p *pair) int64 { return p.figures.Hints.Exchange })
	one.ArmUS = of(func(p *pair) int64 { return p.figures.Hints.Arm })
	one.ClearUS = of(func(p *pair) int64 { return p.figures.Hints.Clear })
	one.SetupMS = of(func(p *pair) int64 { return p.figures.SetupTime })
	one.TotalMS = of(func(p *pair) int64 { return p.figures.TotalTime })
	one.DowntimeMS = of(func(p *pair) int64 { return p.figures.Downtime })
	one.BackendCPUMS = of(func(p *pair) int64 {
		return (p.after.cpu - p.before.cpu).Milliseconds()
	})
	var memory []float64
	for _, p := range pairs {
		n, err := anonymous(p.source.backend.PID())
		if err != nil {
			return err
		}
		memory = append(memory, float64(n))
	}
	one.BackendMemory = newSpread(memory).Median
	return nil
}

// anonymous returns the memory of a process that is no guest's and no file's, in bytes.
func anonymous(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseMemory(string(status), "RssAnon:")
}
