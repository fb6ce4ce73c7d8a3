// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"fmt"
	"io"

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
func (s *Snapshot) Constants() map[string]uint64 { return s.constants }

// CanWalk says whether a program is attached.
func (s *Snapshot) CanWalk() bool { return s.link != nil }

// Use attaches another program instead of the present one, where allowed says that it may be
// attached; nil allows all. commit, unless nil, is called when it has passed its trial, and
// may refuse it. The program has to keep the contract in driver-ebpf/README.md, and to use
// the maps of Shared. After an error, the program is the one before, or none if that could not
// be attached again: see CanWalk. The snapshot closes prog, also after an error.
func (s *Snapshot) Use(
	prog *ebpf.Program, allowed func(function string) bool, commit func() error,
) error {
	return s.use(prog, allowed, commit)
}

func (s *Snapshot) use(
	prog io.Closer, allowed func(function string) bool, commit func() error,
) error {
	before, beforeAllowed := s.prog, s.allowed
	// Two programs that are attached would both write records.
	if err := s.detach(); err != nil {
		return errors.Join(err, prog.Close(), s.drop())
	}
	s.prog, s.allowed = prog, allowed
	err := s.attach()
	if err != nil {
		err = fmt.Errorf("try the program: %w", err)
	} else if commit != nil {
		err = commit()
	}
	if err == nil {
		return s.closeProgram(before)
	}
	undo := s.detach()
	err = errors.Join(err, undo, prog.Close())
	s.prog, s.allowed = before, beforeAllowed
	if before == nil || undo != nil {
		return errors.Join(err, s.drop())
	}
	if again := s.attach(); again != nil {
		again = fmt.Errorf("attach the program before again: %w", again)
		return errors.Join(err, again, s.drop())
	}
	return err
}

// Restore attaches the built-in program instead of the present one, which it closes. Without a
// built-in program, and after an error, nothing is attached any more.
func (s *Snapshot) Restore() error {
	if s.builtIn != nil && s.prog == s.builtIn {
		return nil
	}
	err := errors.Join(s.detach(), s.drop())
	if err != nil || s.builtIn == nil {
		return err
	}
	s.prog = s.builtIn
	if err := s.attach(); err != nil {
		err = fmt.Errorf("attach the built-in program again: %w", err)
		return errors.Join(err, s.drop())
	}
	return nil
}

// drop forgets the program, which is not attached.
func (s *Snapshot) drop() error {
	prog := s.prog
	s.prog, s.allowed = nil, nil
	return s.closeProgram(prog)
}

// closeProgram closes a program that is not the built-in one.
func (s *Snapshot) closeProgram(prog io.Closer) error {
	if prog == nil || prog == s.builtIn {
		return nil
	}
	return prog.Close()
}
