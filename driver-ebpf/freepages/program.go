// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Shared returns the maps that every program has in common with the snapshot, by name. They
// belong to the snapshot.
func (s *Snapshot) Shared() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		"control": s.objs.Control, "counts": s.objs.Counts, "records": s.objs.Records,
	}
}

// Constants returns the values of a program's variables on this kernel, by name.
func (s *Snapshot) Constants() map[string]uint64 { return s.layout }

// CanWalk says whether a program is attached.
func (s *Snapshot) CanWalk() bool { return s.prog != nil }

// Use attaches another program instead of the present one, where allowed says that it may be
// attached; nil allows all. commit, unless nil, is called when it has passed its trial, and
// may refuse it. The program has to keep the contract in driver-ebpf/README.md, and to use
// the maps of Shared. After an error, the program is the one before. The snapshot
// closes prog, also after an error. A nil prog is the built-in program; if there is none,
// nothing is attached any more.
func (s *Snapshot) Use(
	prog *ebpf.Program, allowed func(function string) bool, commit func() error,
) error {
	if prog == nil {
		prog = s.objs.WalkZone
	}
	if prog == s.prog {
		return nil
	}
	before, beforeAllowed := s.prog, s.allowed
	// Two programs that are attached would both write records.
	err := s.detach()
	if err == nil {
		s.prog, s.allowed = prog, allowed
		if prog == nil {
			return s.closeProgram(before)
		}
		if err = s.attach(); err != nil {
			err = fmt.Errorf("try the program: %w", err)
		} else if commit != nil {
			err = commit()
		}
	}
	if err == nil {
		return s.closeProgram(before)
	}
	err = errors.Join(err, s.detach(), s.closeProgram(prog))
	if s.prog, s.allowed = before, beforeAllowed; before != nil {
		if again := s.attach(); again != nil {
			err = errors.Join(err, fmt.Errorf("attach the program before again: %w", again))
		}
	}
	return err
}

// closeProgram closes a program that is not the built-in one.
func (s *Snapshot) closeProgram(prog *ebpf.Program) error {
	if prog == nil || prog == s.objs.WalkZone {
		return nil
	}
	return prog.Close()
}
