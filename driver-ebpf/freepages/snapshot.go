// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

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
	lg        *zap.Logger
	peek      *kernel.Peek
	objs      walkObjects
	system    system
	builtIn   io.Closer         // of objs; nil: none
	prog      io.Closer         // the attached one; nil: none
	layout    map[string]uint64 // constants of a walk
	constants map[string]uint64 // of programs of all kinds
	allowed   func(function string) bool
	link      io.Closer // nil: nothing is attached, and nothing can be walked
	hook      Hook
	proven    []Hook // where the built-in program is, or was last
	maxOrder  int
	file      *zoneFile
	refresh   *os.File
	drain     *drain // nil: the kernel has none
	drained   time.Duration
	visitor   *visitor // nil: lists of CPUs are not walked
	visits    int      // of this request

	records     *dma.Region
	capacity    uint32
	controlMem  *dma.Region
	control     control
	countsMem   *dma.Region
	counts      counts
	tid         int // thread that task belongs to
	task        uint64
	request     uint64
	steps       int
	misses      int        // see read.state
	finished    int        // zones walked to their end since Begin
	reprinted   bool       // a read printed a zone twice, since Begin
	count       uint32     // records in the buffer, at most capacity
	releasedRec uint64     // records released since Begin
	last        read       // of the last step
	held        uint32     // pages found on lists of CPUs since Begin
	unsettled   uint32     // lists of a CPU left out since Begin
	total       walk.Stats // of all steps since Begin, as far as the program counts
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
	s.steps, s.misses, s.visits, s.count, s.releasedRec = 0, 0, 0, 0, 0
	s.last, s.total, s.held, s.unsettled = read{}, walk.Stats{}, 0, 0
	s.finished, s.reprinted = 0, false
	s.file.text = nil
	clear(s.control)
	clear(s.counts)
}

// Step implements [walk.Walker]. It reads the hook's file once: it holds each zone's lock one
// time, or twice where the kernel prints the zone again, each within the budget, and appends
// records. After the last step it does so again on each CPU, for the lists of that CPU.
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
	s.arm(s.task, 0, budget)
	err := s.file.read()
	s.control.setU32(controlArmed, 0)
	var r read
	var count uint32
	if err == nil {
		r, count, err = s.result()
	}
	s.count, s.last = 0, r // after an error there are no records
	if err != nil {
		return walk.More, err
	}
	if r.missed() {
		s.misses++
	}
	state, err := r.state(s.misses)
	if err != nil {
		return walk.More, fmt.Errorf("walk on %v finished %d of %d zones: %w",
			s.hook, r.finished, r.printed, err)
	}
	s.count = count
	if state == walk.Done && s.visitor != nil {
		s.visitor.run(func(cpu int) { s.visit(cpu, budget) })
	}
	return state, nil
}

// visit walks the lists of the CPU that the calling thread is bound to. Its errors do no harm:
// these lists are left out.
func (s *Snapshot) visit(cpu int, budget walk.Budget) {
	task, err := s.system.task()
	if err != nil {
		return
	}
	s.visits++
	s.arm(task, cpu+1, budget)
	err = s.file.read()
	s.control.setU32(controlArmed, 0)
	if err == nil {
		_, s.count, err = s.result()
	}
	if err != nil {
		s.lg.Debug("lists of a CPU are left out", zap.Int("cpu", cpu), zap.Error(err))
	}
}

// arm tells the program what to do in the next read by a task, with the lists of a CPU from 1
// on or of none. All of control is written anew: the program can write it, too, and must not
// disturb the next step or the program after it.
func (s *Snapshot) arm(task uint64, cpu int, budget walk.Budget) {
	clear(s.control)
	s.control.setU64(controlTask, task)
	s.control.setU32(controlCPU, uint32(cpu))
	s.control.setU64(controlRequest, s.request)
	s.control.setU64(controlBudgetNS, uint64(budget.Time))
	s.control.setU32(controlBudget, min(budget.Entries, MaxEntries))
	s.control.setU32(controlCount, s.count)
	s.control.setU32(controlArmed, 1)
}

// result takes over what the program wrote in a read of the file. It looks at each field once,
// and returns the number of records in the buffer: that of before, after an error.
func (s *Snapshot) result() (r read, count uint32, err error) {
	c := control(slices.Clone(s.control))
	count = c.u32(controlCount)
	s.finished += int(c.u32(controlFinished))
	r = read{
		printed:    s.file.zones(),
		finished:   s.finished,
		unfinished: int(c.u32(controlUnfinished)),
		full:       count >= s.capacity,
	}
	// The kernel prints a node once more when the text does not fit into its buffer. A walk
	// that the first print has cut goes on in the second.
	s.reprinted = s.reprinted || int(c.u32(controlZones)) > r.printed
	s.total.WalkTime += time.Duration(c.u64(controlWalkNS))
	s.total.HoldMax = max(s.total.HoldMax, time.Duration(c.u64(controlHoldMaxNS)))
	s.total.Holds += c.u32(controlHolds)
	s.total.Restarts += c.u32(controlRestarts)
	s.held += c.u32(controlHeld)
	s.unsettled += c.u32(controlUnsettled)
	switch {
	case c.u32(controlUnlocked) != 0:
		return r, s.count, ErrUnlocked
	case c.u32(controlLocked) != c.u32(controlZones):
		return r, s.count, fmt.Errorf("the lock was checked for %d of %d zones: %w",
			c.u32(controlLocked), c.u32(controlZones), ErrUnlocked)
	case c.u32(controlBroken) != 0:
		return r, s.count, fmt.Errorf("walk %d zones: %w", c.u32(controlZones), ErrLayout)
	case count < s.count || count > s.capacity:
		return r, s.count, fmt.Errorf("walk: %d records after %d, with room for %d: %w",
			count, s.count, s.capacity, ErrLayout)
	}
	return r, count, nil
}

// adoptThread makes the program walk in reads of the calling thread. The caller has locked
// its goroutine to the thread.
func (s *Snapshot) adoptThread() error {
	tid := unix.Gettid()
	if tid == s.tid {
		return nil
	}
	task, err := s.system.task()
	if err != nil {
		return err
	}
	s.task, s.tid = task, tid
	return nil
}

// Records implements [walk.Walker]. The slice is in Memory, and invalid after Close.
func (s *Snapshot) Records() []byte {
	return s.records.Bytes()[:int(s.count)*protocol.RecordSize]
}

// Memory returns the region with the records, for a device to read them. It is invalid after
// Close.
func (s *Snapshot) Memory() *dma.Region { return s.records }

// Release implements [walk.Walker].
func (s *Snapshot) Release() {
	s.releasedRec += uint64(s.count)
	s.count = 0
}

// Stats implements [walk.Walker].
func (s *Snapshot) Stats() walk.Stats {
	stats := s.total
	stats.Records = s.releasedRec + uint64(s.count)
	stats.Drain, stats.Resumed = s.drained, s.steps > 1 || s.visits > 0 || s.reprinted
	if !s.last.done() {
		if blocks := s.counts.sum(); blocks > stats.Records {
			stats.LeftOut = blocks - stats.Records
		}
	}
	return stats
}
