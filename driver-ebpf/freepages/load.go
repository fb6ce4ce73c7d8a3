// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"fmt"
	"maps"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// Load loads the program and attaches it. The caller closes the snapshot, and closes peek
// only after it.
func Load(peek *kernel.Peek, opts Options) (_ *Snapshot, err error) {
	lg := opts.Log
	if lg == nil {
		lg = zap.NewNop()
	}
	s := &Snapshot{lg: lg, peek: peek, system: running{peek}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.load(opts, lg); err != nil {
		return nil, err
	}
	s.records, err = dma.Map(s.objs.Records)
	if err != nil {
		return nil, err
	}
	s.controlMem, err = dma.Map(s.objs.Control)
	if err != nil {
		return nil, err
	}
	s.control = s.controlMem.Bytes()[:controlSize]
	s.countsMem, err = dma.Map(s.objs.Counts)
	if err != nil {
		return nil, err
	}
	s.counts = s.countsMem.Bytes()[:s.objs.Counts.MaxEntries()*maxOrders*8]
	if s.objs.WalkZone != nil {
		s.builtIn = s.objs.WalkZone
		s.prog = s.builtIn
		if err := s.attach(); err != nil {
			return nil, err
		}
	}
	// The trial reads of attach need neither of these.
	s.visitor = newVisitor(visitLimit, isolatedFile, nohzFile, cpusetFile)
	if err := s.findDrain(); err != nil {
		lg.Info("per-CPU lists of free pages are not drained", zap.Error(err))
	}
	return s, nil
}

// findDrain sets s.drain if the kernel can shorten its per-CPU lists.
func (s *Snapshot) findDrain() (err error) {
	if _, err := s.peek.Symbol("decay_pcp_high"); err != nil {
		return nil // before Linux 6.7
	}
	if s.refresh, err = openRefresh(); err != nil {
		return err
	}
	s.drain = newDrain(s.refresh, drainLimit, isolatedFile, nohzFile, cpusetFile)
	return nil
}

func (s *Snapshot) load(opts Options, lg *zap.Logger) error {
	records := opts.Records
	if records == 0 {
		records = DefaultRecords
	}
	s.capacity = uint32(records)
	spec, err := loadWalk()
	if err != nil {
		return fmt.Errorf("parse walk program: %w", err)
	}
	spec.Maps["records"].MaxEntries = s.capacity
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("load kernel types: %w", err)
	}
	n, err := orders(types)
	if err != nil {
		return err
	}
	s.maxOrder = n - 1
	version, err := features.LinuxVersionCode()
	if err != nil {
		return fmt.Errorf("find kernel version: %w", err)
	}
	if s.layout, err = findLayout(s.peek, version); err != nil {
		return err
	}
	constants, err := kernel.LRU(types)
	if err != nil {
		lg.Info("the kernel's generations of pages are not known", zap.Error(err))
	}
	s.constants = maps.Clone(s.layout)
	maps.Copy(s.constants, constants)
	if opts.NoProgram {
		if err := spec.LoadAndAssign(&s.objs.walkMaps, nil); err != nil {
			return fmt.Errorf("make the maps of a walk program: %w", err)
		}
		return nil
	}
	if err := setLayout(spec, s.layout); err != nil {
		return err
	}
	err = spec.LoadAndAssign(&s.objs, &ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{KernelTypes: types},
	})
	if err != nil {
		return fmt.Errorf("load walk program: %w", err)
	}
	return nil
}

// attach attaches the program to the first hook that sees every zone in a trial read, under its
// lock. Where there is a built-in program, another one gets the hook that the built-in's trial
// found: what it says of the lock is then not the only proof.
func (s *Snapshot) attach() error {
	var hooks []Hook
	var err error
	if s.builtIn != nil && s.prog != s.builtIn {
		hooks, err = s.proven, errors.New("attach: the built-in program has no hook")
	} else if hooks, err = s.system.hooks(); err != nil {
		s.lg.Info("the print of a zone was not found", zap.Error(err))
	}
	tried := false
	for _, hook := range hooks {
		if s.allowed != nil && !s.allowed(hook.Symbol) {
			if !tried { // or what became of the trial says more
				err = fmt.Errorf("attach to %v: the policy does not allow that", hook)
			}
			continue
		}
		tried = true
		if err = s.attachTo(hook); err == nil {
			if s.prog == s.builtIn {
				s.proven = []Hook{hook}
			}
			s.lg.Info("walk attached", zap.Stringer("hook", hook))
			if hook.Symbol == printCallee {
				s.lg.Warn("the hook is the slower one: no call in the print of a zone works")
			}
			return nil
		}
		level := zap.WarnLevel
		if errors.Is(err, ErrUnlocked) { // as buddyinfo since Linux 7.3
			level = zap.InfoLevel
		}
		s.lg.Log(level, "hook does not work", zap.Stringer("hook", hook), zap.Error(err))
		err = errors.Join(err, s.detach())
	}
	return err
}

// attachTo attaches the program to a hook, and tries it.
func (s *Snapshot) attachTo(hook Hook) (err error) {
	s.hook = hook
	if s.link, err = s.system.attach(hook, s.prog); err != nil {
		return err
	}
	if s.file, err = s.system.open(hook.File); err != nil {
		return err
	}
	return s.try()
}

// detach undoes attachTo, whatever it has done.
func (s *Snapshot) detach() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	if s.file != nil {
		errs = append(errs, s.file.close())
	}
	s.link, s.file = nil, nil
	return errors.Join(errs...)
}

// try reads the hook's file once with a small budget, and checks that the program has begun to
// walk each printed zone.
func (s *Snapshot) try() error {
	s.Begin()
	defer s.Release()
	if _, err := s.Step(walk.Budget{Entries: 16}); err != nil {
		return err
	}
	r := s.last
	if begun := r.finished + r.unfinished; begun < r.printed || begun == 0 {
		return fmt.Errorf("walk on %v began %d of %d zones", s.hook, begun, r.printed)
	}
	return nil
}

// Close detaches and unloads the program. Memory and the slices of Records are invalid then.
func (s *Snapshot) Close() error {
	errs := []error{s.detach(), s.closeProgram(s.prog)}
	for _, r := range []*dma.Region{s.records, s.controlMem, s.countsMem} {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	if s.refresh != nil {
		errs = append(errs, s.refresh.Close())
	}
	return errors.Join(append(errs, s.objs.Close())...)
}
