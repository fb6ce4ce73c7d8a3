// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// DefaultRecords is the number of records that the buffer holds by default:
// 4 MiB of them.
const DefaultRecords = 512 << 10

// MaxEntries is the most blocks that are visited in one hold, whatever the budget says. The
// kernel caps its own walks of a free list under the lock at this number, so as not to trigger
// its hard-lockup detector (commit 93b3a674485f).
const MaxEntries = 100_000

// ErrUnlocked says that the kernel prints zones without zone->lock, as Linux 7.3 does in
// /proc/buddyinfo, or with interrupts on, as PREEMPT_RT does. Free lists that change meanwhile
// can lead to pages that are in use.
var ErrUnlocked = fmt.Errorf("zones printed without zone->lock, or with interrupts on: %w",
	errors.ErrUnsupported)

// ErrLayout says that the free lists do not have the layout that the walk expects.
var ErrLayout = errors.New("free lists do not look as expected")

// Defaults for the fields of a budget that are 0.
const (
	defaultTime    = time.Millisecond
	defaultEntries = 20_000
)

// Options of Load. The zero value selects the defaults.
type Options struct {
	Records int // size of the record buffer; 0: DefaultRecords
	Log     *zap.Logger

	// NoProgram loads no program: nothing can be walked before [Snapshot.Use].
	NoProgram bool
}

// Snapshot walks the free lists. Its methods must not be called concurrently.
type Snapshot struct {
	lg       *zap.Logger
	peek     *kernel.Peek
	objs     walkObjects
	prog     *ebpf.Program     // the attached one; nil: none
	layout   map[string]uint64 // constants of every program
	allowed  func(function string) bool
	link     link.Link
	hook     Hook
	maxOrder int
	file     *zoneFile
	refresh  *os.File
	drain    *drain // nil: the kernel has none
	drained  time.Duration
	visitor  *visitor // nil: lists of CPUs are not walked
	visits   int      // of this request

	records     *dma.Region
	capacity    uint32
	controlMem  *dma.Region
	control     control
	countsMem   *dma.Region
	counts      counts
	tid         int // thread that control's task belongs to
	request     uint64
	steps       int
	misses      int    // see read.state
	releasedRec uint64 // records released since Begin
}

// Hook returns where the walk is attached.
func (s *Snapshot) Hook() Hook { return s.hook }

// MaxOrder returns the highest order of the kernel's allocator.
func (s *Snapshot) MaxOrder() int { return s.maxOrder }

var _ walk.Walker = (*Snapshot)(nil)

// Begin implements [walk.Walker]. It first makes the kernel shorten its per-CPU lists of free
// pages, which can be too long to walk them at once.
func (s *Snapshot) Begin() {
	s.drained = s.drain.run()
	s.request++
	s.steps, s.misses, s.visits, s.releasedRec = 0, 0, 0, 0
	s.file.text = nil
	clear(s.control[controlCount:])
	s.control.setU64(controlRequest, s.request)
}

// Step implements [walk.Walker]. It reads the hook's file once: it holds each zone's
// lock one time, within the budget, and appends records. After the last step it does so again
// on each CPU, for the lists of that CPU.
func (s *Snapshot) Step(budget walk.Budget) (walk.State, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := s.adoptThread(); err != nil {
		return walk.More, err
	}
	if budget.Time <= 0 {
		budget.Time = defaultTime
	}
	if budget.Entries == 0 {
		budget.Entries = defaultEntries
	}
	s.steps++
	s.control.setU64(controlBudgetNS, uint64(budget.Time))
	s.control.setU32(controlBudget, min(budget.Entries, MaxEntries))
	s.control.setU32(controlZones, 0)
	s.control.setU32(controlUnfinished, 0)
	s.control.setU32(controlArmed, 1)
	err := s.file.read()
	s.control.setU32(controlArmed, 0)
	switch {
	case err != nil:
		return walk.More, err
	case s.control.u32(controlUnlocked) != 0:
		return walk.More, ErrUnlocked
	case s.control.u32(controlBroken) != 0:
		return walk.More, fmt.Errorf("walk %d zones: %w", s.control.u32(controlZones), ErrLayout)
	}
	r := s.lastRead()
	if r.missed() {
		s.misses++
	}
	state, err := r.state(s.misses)
	if err != nil {
		return walk.More, fmt.Errorf("walk on %v saw %d of %d zones: %w",
			s.hook, r.seen, r.printed, err)
	}
	if state == walk.Done && s.visitor != nil {
		s.visitor.run(s.visit)
		s.tid = 0 // the control's task is the visitor's
	}
	return state, nil
}

// visit walks the lists of the CPU that the calling thread is bound to. Its errors do no harm:
// these lists are left out.
func (s *Snapshot) visit(cpu int) {
	task, err := s.peek.CurrentTask()
	if err != nil {
		return
	}
	s.visits++
	s.control.setU64(controlTask, task)
	s.control.setU32(controlCPU, uint32(cpu+1))
	s.control.setU32(controlArmed, 1)
	err = s.file.read()
	s.control.setU32(controlArmed, 0)
	s.control.setU32(controlCPU, 0)
	if err != nil {
		s.lg.Debug("lists of a CPU are left out", zap.Int("cpu", cpu), zap.Error(err))
	}
}

func (s *Snapshot) lastRead() read {
	return read{
		printed:    s.file.zones(),
		seen:       int(s.control.u32(controlZones)),
		unfinished: int(s.control.u32(controlUnfinished)),
		full:       s.control.u32(controlCount) >= s.capacity,
	}
}

// adoptThread makes the program walk in reads of the calling thread. The caller has locked
// its goroutine to the thread.
func (s *Snapshot) adoptThread() error {
	tid := unix.Gettid()
	if tid == s.tid {
		return nil
	}
	task, err := s.peek.CurrentTask()
	if err != nil {
		return err
	}
	s.control.setU64(controlTask, task)
	s.tid = tid
	return nil
}

// Records implements [walk.Walker]. The slice is in Memory, and invalid after Close.
func (s *Snapshot) Records() []byte {
	return s.records.Bytes()[:s.control.u32(controlCount)*protocol.RecordSize]
}

// Memory returns the region with the records, for a device to read them. It is invalid after
// Close.
func (s *Snapshot) Memory() *dma.Region { return s.records }

// Release implements [walk.Walker].
func (s *Snapshot) Release() {
	s.releasedRec += uint64(s.control.u32(controlCount))
	s.control.setU32(controlCount, 0)
}

// Stats implements [walk.Walker].
func (s *Snapshot) Stats() walk.Stats {
	stats := walk.Stats{
		Records:  s.releasedRec + uint64(s.control.u32(controlCount)),
		WalkTime: time.Duration(s.control.u64(controlWalkNS)),
		HoldMax:  time.Duration(s.control.u64(controlHoldMaxNS)),
		Holds:    s.control.u32(controlHolds),
		Restarts: s.control.u32(controlRestarts),
		Drain:    s.drained,
		Resumed:  s.steps > 1 || s.visits > 0,
	}
	if !s.lastRead().done() {
		if blocks := s.counts.sum(); blocks > stats.Records {
			stats.LeftOut = blocks - stats.Records
		}
	}
	return stats
}
