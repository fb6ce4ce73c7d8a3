// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"io"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

const (
	fakeTask  = 0xffff888000001234
	fakeZones = 2
	fakeRoom  = 100 // records
)

var errFake = errors.New("broken")

// fakeProgram is a program that does for a whole read what its function says.
type fakeProgram struct {
	run    func(control, Hook)
	closed int
}

func (p *fakeProgram) Close() error { p.closed++; return nil }

// honest finds so many blocks in each step, under the lock.
func honest(blocks uint32) *fakeProgram {
	return &fakeProgram{run: func(c control, _ Hook) {
		if c.u32(controlArmed) == 0 || c.u64(controlTask) != fakeTask {
			return
		}
		c.setU32(controlZones, c.u32(controlZones)+fakeZones)
		c.setU32(controlLocked, c.u32(controlLocked)+fakeZones)
		c.setU32(controlHolds, c.u32(controlHolds)+fakeZones)
		c.setU32(controlFinished, c.u32(controlFinished)+fakeZones)
		c.setU32(controlCount, c.u32(controlCount)+blocks)
	}}
}

// then is a program that does something more after what p does.
func (p *fakeProgram) then(more func(control)) *fakeProgram {
	return &fakeProgram{run: func(c control, h Hook) { p.run(c, h); more(c) }}
}

// fakeSystem is a kernel with two hooks. It runs the program that is attached in each read.
type fakeSystem struct {
	s        *Snapshot
	prog     *fakeProgram
	hook     Hook
	refuse   map[io.Closer]bool // programs that cannot be attached
	attached int                // programs now
}

func (f *fakeSystem) task() (uint64, error) { return fakeTask, nil }

func (f *fakeSystem) hooks() ([]Hook, error) {
	return []Hook{{Symbol: "first", File: "first"}, {Symbol: "second", File: "second"}}, nil
}

func (f *fakeSystem) attach(hook Hook, prog io.Closer) (io.Closer, error) {
	if f.refuse[prog] {
		return nil, errFake
	}
	f.prog, f.hook = prog.(*fakeProgram), hook
	f.attached++
	return closer(func() error { f.attached--; f.prog = nil; return nil }), nil
}

func (f *fakeSystem) open(path string) (*zoneFile, error) {
	return &zoneFile{path: path, source: f, buf: make([]byte, textSize)}, nil
}

func (f *fakeSystem) pread(p []byte, off int64) (int, error) {
	if off != 0 {
		return 0, nil
	}
	if f.prog != nil {
		f.prog.run(f.s.control, f.hook)
	}
	return copy(p, "Node 0, zone DMA\nNode 0, zone Normal\n"), nil
}

func (f *fakeSystem) close() error { return nil }

type closer func() error

func (c closer) Close() error { return c() }

// mustFake returns a snapshot on a fake kernel, with this built-in program, or none.
func mustFake(t *testing.T, builtIn *fakeProgram) (*Snapshot, *fakeSystem) {
	t.Helper()
	f := &fakeSystem{refuse: make(map[io.Closer]bool)}
	f.s = &Snapshot{
		lg: zaptest.NewLogger(t), system: f, capacity: fakeRoom,
		control: make(control, controlSize), counts: make(counts, 2*maxOrders*8),
		records: dma.Fixed(make([]byte, fakeRoom*protocol.RecordSize), 4096, nil),
	}
	if builtIn != nil {
		f.s.builtIn, f.s.prog = builtIn, builtIn
		if err := f.s.attach(); err != nil {
			t.Fatal(err)
		}
	}
	return f.s, f
}

// requireWalk fails unless the snapshot walks with a program that finds so many blocks.
func requireWalk(t *testing.T, s *Snapshot, blocks int) {
	t.Helper()
	if !s.CanWalk() {
		t.Fatal("no program is attached")
	}
	s.Begin()
	state, err := s.Step(walk.Budget{})
	got := len(s.Records()) / protocol.RecordSize
	if err != nil || state != walk.Done || got != blocks {
		t.Fatalf("state %v, error %v, %d records, want %d", state, err, got, blocks)
	}
}

// Whatever a program writes into the map that it shares with the agent, the program after it
// walks, and so does the one before if the trial fails.
func TestProgramCannotDisturbTheOneAfterIt(t *testing.T) {
	garbage := func(c control) {
		for i := range c {
			c[i] = 0xff
		}
	}
	builtIn := honest(3)
	s, f := mustFake(t, builtIn)
	spoil := func(c control) { c.setU64(controlTask, 1); c.setU64(controlBudgetNS, 0) }
	first := honest(4).then(spoil)
	if err := s.use(first, nil, nil); err != nil {
		t.Fatal(err)
	}
	requireWalk(t, s, 4)
	requireWalk(t, s, 4)
	bad := honest(5).then(garbage)
	if err := s.use(bad, nil, nil); err == nil || bad.closed != 1 {
		t.Fatalf("error %v, closed %d times", err, bad.closed)
	}
	requireWalk(t, s, 4)
	if err := s.Restore(); err != nil {
		t.Fatal(err)
	}
	requireWalk(t, s, 3)
	if first.closed != 1 || builtIn.closed != 0 || f.attached != 1 {
		t.Fatalf("closed %d and %d times, %d are attached", first.closed, builtIn.closed, f.attached)
	}
}

// When what should be attached instead cannot be, nothing is, and the next program still can.
func TestNothingIsAttachedAfterAFailedWayBack(t *testing.T) {
	for name, fail := range map[string]func(s *Snapshot, f *fakeSystem, before io.Closer) error{
		"in Restore": func(s *Snapshot, f *fakeSystem, _ io.Closer) error {
			f.refuse[s.builtIn] = true
			return s.Restore()
		},
		"after a trial": func(s *Snapshot, f *fakeSystem, before io.Closer) error {
			bad := &fakeProgram{run: func(control, Hook) { f.refuse[before] = true }}
			return s.use(bad, nil, nil)
		},
		"after a commit": func(s *Snapshot, f *fakeSystem, before io.Closer) error {
			f.refuse[before] = true
			return s.use(honest(9), nil, func() error { return errFake })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := mustFake(t, honest(3))
			before := honest(4)
			if err := s.use(before, nil, nil); err != nil {
				t.Fatal(err)
			}
			if err := fail(s, f, before); !errors.Is(err, errFake) {
				t.Fatalf("error %v", err)
			}
			if s.CanWalk() || f.attached != 0 || before.closed != 1 {
				t.Fatalf("CanWalk %v, %d are attached, the one before was closed %d times",
					s.CanWalk(), f.attached, before.closed)
			}
			clear(f.refuse)
			if err := s.use(honest(5), nil, nil); err != nil {
				t.Fatal(err)
			}
			requireWalk(t, s, 5)
			if err := s.Restore(); err != nil {
				t.Fatal(err)
			}
			requireWalk(t, s, 3)
		})
	}
}

func TestWithoutABuiltInProgramNothingIsLeftAttached(t *testing.T) {
	s, f := mustFake(t, nil)
	for range 2 {
		if err := s.use(honest(4), nil, nil); err != nil {
			t.Fatal(err)
		}
		requireWalk(t, s, 4)
		if err := s.Restore(); err != nil || s.CanWalk() || f.attached != 0 {
			t.Fatalf("error %v, CanWalk %v, %d are attached", err, s.CanWalk(), f.attached)
		}
	}
	if err := s.use(&fakeProgram{run: func(control, Hook) {}}, nil, nil); err == nil || s.CanWalk() {
		t.Fatalf("error %v, CanWalk %v", err, s.CanWalk())
	}
}

// The number of records is what the program says, and is not to be believed.
func TestCountOfAProgramIsChecked(t *testing.T) {
	for name, count := range map[string]uint32{
		"one too many": fakeRoom + 1, "all": 1<<32 - 1, "a product that wraps": 1<<29 + 1,
		"fewer than before": 1,
	} {
		t.Run(name, func(t *testing.T) {
			lie := false
			s, _ := mustFake(t, honest(2).then(func(c control) {
				if lie {
					c.setU32(controlCount, count)
				} else {
					c.setU32(controlUnfinished, 1)
				}
			}))
			s.Begin()
			if state, err := s.Step(walk.Budget{}); state != walk.More || err != nil {
				t.Fatalf("state %v, error %v", state, err)
			}
			lie = true
			_, err := s.Step(walk.Budget{})
			if n := len(s.Records()); !errors.Is(err, ErrLayout) || n != 0 || s.Stats().Records != 0 {
				t.Fatalf("error %v, %d bytes of records, %+v", err, n, s.Stats())
			}
			s.Release()
		})
	}
}

// The lists of the CPUs come after the last step, and what is wrong there leaves them out.
func TestVisitOfACPUIsCheckedAsAStepIs(t *testing.T) {
	for name, c := range map[string]struct {
		change func(control)
		want   int
	}{
		"as it should be": {func(control) {}, 4},
		"too many":        {func(c control) { c.setU32(controlCount, fakeRoom+1) }, 2},
		"without a lock":  {func(c control) { c.setU32(controlLocked, 0) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			visit := false
			s, _ := mustFake(t, honest(2).then(func(control) {}))
			s.prog.(*fakeProgram).run = func(cc control, h Hook) {
				honest(2).run(cc, h)
				if visit = cc.u32(controlCPU) != 0; visit {
					c.change(cc)
				}
			}
			requireWalk(t, s, 2)
			s.visit(0, walk.Budget{})
			if n := len(s.Records()) / protocol.RecordSize; n != c.want || !visit {
				t.Fatalf("%d records, want %d; visited %v", n, c.want, visit)
			}
		})
	}
}

// The probe also fires for other readers of the file, between the calls of a step.
func TestRecordsStayAsTheyWereAfterTheStep(t *testing.T) {
	s, _ := mustFake(t, honest(2))
	requireWalk(t, s, 2)
	s.control.setU32(controlCount, 1<<31)
	if n := len(s.Records()) / protocol.RecordSize; n != 2 || s.Stats().Records != 2 {
		t.Fatalf("%d records, %+v", n, s.Stats())
	}
	s.Release()
	if got := s.Stats().Records; got != 2 {
		t.Fatalf("%d records", got)
	}
}

// A program that does not say that it checked the lock is taken for one that did not.
func TestProgramHasToProveTheLock(t *testing.T) {
	s, _ := mustFake(t, honest(3))
	for name, locked := range map[string]uint32{"no zone": 0, "one zone of two": 1, "too many": 3} {
		p := honest(4).then(func(c control) { c.setU32(controlLocked, locked) })
		if err := s.use(p, nil, nil); !errors.Is(err, ErrUnlocked) {
			t.Errorf("%s: error %v, want %v", name, err, ErrUnlocked)
		}
		requireWalk(t, s, 3)
	}
}

// The built-in program knows best where the lock is held: another one goes nowhere else.
func TestProgramGetsTheHookOfTheBuiltInOne(t *testing.T) {
	walks := honest(3)
	builtIn := &fakeProgram{run: func(c control, h Hook) {
		if h.Symbol == "first" {
			c.setU32(controlUnlocked, 1)
			return
		}
		walks.run(c, h)
	}}
	s, f := mustFake(t, builtIn)
	if err := s.use(honest(4), nil, nil); err != nil || f.hook.Symbol != "second" {
		t.Fatalf("error %v, hook %v", err, f.hook)
	}
	only := func(function string) bool { return function == "first" }
	if err := s.use(honest(5), only, nil); err == nil {
		t.Fatal("a program is where the policy does not allow it")
	}
	requireWalk(t, s, 4)
	bare, f := mustFake(t, nil)
	if err := bare.use(honest(4), nil, nil); err != nil || f.hook.Symbol != "first" {
		t.Fatalf("without a built-in program: error %v, hook %v", err, f.hook)
	}
}

// Where a program may be attached to some hooks only, the host is told why none of these works,
// and not that the others are not allowed.
func TestReasonIsOfTheHookThatWasTried(t *testing.T) {
	unlocked := honest(3).then(func(c control) { c.setU32(controlUnlocked, 1) })
	for _, allowed := range []string{"first", "second"} {
		s, _ := mustFake(t, nil)
		only := func(function string) bool { return function == allowed }
		if err := s.use(unlocked, only, nil); !errors.Is(err, ErrUnlocked) {
			t.Errorf("allowed at %s: error %v, want %v", allowed, err, ErrUnlocked)
		}
	}
}

// Where a zone is printed twice in one read, blocks may repeat.
func TestAZoneThatIsPrintedTwiceMayRepeatBlocks(t *testing.T) {
	for _, twice := range []bool{false, true} {
		s, _ := mustFake(t, honest(3).then(func(c control) {
			if twice && c.u32(controlArmed) != 0 {
				c.setU32(controlZones, fakeZones+1)
				c.setU32(controlLocked, fakeZones+1)
			}
		}))
		requireWalk(t, s, 3)
		if got := s.Stats().Resumed; got != twice {
			t.Errorf("printed twice: %v, blocks may repeat: %v", twice, got)
		}
	}
}
