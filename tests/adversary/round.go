// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Plan is what the guest does around one migration; see struct attack and
// order_plan of the guest. Cycles are those of the time stamp counter.
type Plan struct {
	Seed       uint64
	Used       int    // per cent of the memory that is in use before it
	Strike     int    // pages that each processor writes at each moment
	Step       uint64 // cycles from the report's end to the first strike after it
	Churn      uint64 // cycles between two writes that go on all the time; 0: none
	Pairs      bool   // these write free pages of even number, each before a page in use
	PerMessage int    // records; 0: all in one message
	Hold       uint64 // cycles between the walk and the report's end
	Halves     bool   // post half of the report before that
	Restart    bool   // after that half, reset the device instead of posting the rest
	Move       bool   // once the report is read, restart with rings in reported pages
	Late       bool   // report also if the request is void
	Stale      bool   // repeat an older request's report before each
}

func (p Plan) order() string {
	flag := map[bool]int{true: 1}
	return fmt.Sprintf("plan seed=%d used=%d strike=%d step=%d churn=%d pairs=%d per_message=%d "+
		"hold=%d halves=%d restart=%d move=%d late=%d stale=%d",
		p.Seed, p.Used, p.Strike, p.Step, p.Churn, flag[p.Pairs], p.PerMessage,
		p.Hold, flag[p.Halves], flag[p.Restart], flag[p.Move], flag[p.Late], flag[p.Stale])
}

// Round is one migration and the plan for it.
type Round struct {
	Plan
	ClearDelay   time.Duration // how long QEMU waits before it uses the answer
	HintTimeout  time.Duration // how long QEMU waits for the answer; 0: ample
	CancelAfter  time.Duration // cancel a migration before this one, after this time; 0: none
	Bandwidth    int64         // bytes per second; 0: no limit
	Capabilities []string      // of the migration, out of capabilities
	// DirtyRate is for how long QEMU measures the dirty rate during the
	// migration, with the same log. 0: not at all.
	DirtyRate time.Duration
	// ClearShift is the log2 of the pages in a chunk of clear_bmap. It applies to
	// the destination's QEMU, and so to the next round. 0: QEMU's default, 1 GiB.
	ClearShift int
}

// capabilities are those that change how QEMU walks its dirty bitmap.
var capabilities = []string{"auto-converge", "multifd", "xbzrle"}

func (r Round) String() string {
	return fmt.Sprintf("%s; clear-delay %v hint-timeout %v cancel-after %v bandwidth %d "+
		"capabilities %v dirty-rate %v clear-shift %d",
		r.order(), r.ClearDelay, r.HintTimeout, r.CancelAfter, r.Bandwidth, r.Capabilities,
		r.DirtyRate, r.ClearShift)
}

// clearShift returns the options of the QEMU that the clear shift applies to.
func (r Round) clearShift() []string {
	if r.ClearShift == 0 {
		return nil
	}
	return []string{"-global", fmt.Sprintf("migration.x-clear-bitmap-shift=%d", r.ClearShift)}
}

// statuses returns how the exchange with the guest may end.
func (r Round) statuses() []string {
	switch {
	case r.Restart:
		return []string{"no-driver", "cancelled"}
	case r.HintTimeout != 0:
		return []string{"timeout", "driver-timeout"}
	}
	return []string{"ok"}
}

// With this hold and timeout QEMU gives up before the report, at any clock rate.
const (
	lateHold    = 400_000_000
	lateTimeout = 20 * time.Millisecond
)

// Sweep returns a fixed list of rounds. They vary first the times from the report to
// the strikes and to QEMU's use of the answer, then the shape of the report, the
// migration's settings, and reports of void requests.
func Sweep() []Round {
	base := Plan{Used: 25, Strike: 48, Step: 1000, Churn: 50_000}
	var rounds []Round
	add := func(change func(*Round)) {
		r := Round{Plan: base}
		change(&r)
		r.Seed = uint64(len(rounds) + 1)
		rounds = append(rounds, r)
	}
	for _, step := range []uint64{100, 1000, 20_000} {
		for _, delay := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond} {
			add(func(r *Round) { r.Step, r.ClearDelay = step, delay })
		}
	}
	add(func(r *Round) { r.PerMessage = 64 })
	add(func(r *Round) { r.Used, r.ClearShift = 0, 6 })
	add(func(r *Round) { r.Used, r.Strike, r.ClearDelay = 70, 512, 5*time.Millisecond })
	add(func(r *Round) { r.Bandwidth, r.Capabilities = 100<<20, []string{"xbzrle"} })
	add(func(r *Round) { r.Step, r.Capabilities = 20_000, []string{"multifd"} })
	add(func(r *Round) { r.DirtyRate, r.ClearDelay = 50*time.Millisecond, 100*time.Millisecond })
	add(func(r *Round) { r.Halves, r.Hold = true, 1_000_000 })
	add(func(r *Round) { r.Halves, r.Restart = true, true })
	add(func(r *Round) { r.Move, r.ClearDelay = true, 20*time.Millisecond })
	add(func(r *Round) { r.Move, r.Bandwidth = true, 100<<20 })
	add(func(r *Round) { r.Stale, r.ClearDelay = true, 5*time.Millisecond })
	add(func(r *Round) { r.Hold, r.HintTimeout = lateHold, lateTimeout })
	add(func(r *Round) { r.Hold, r.HintTimeout, r.Late = lateHold, lateTimeout, true })
	add(func(r *Round) {
		r.CancelAfter, r.ClearDelay, r.Stale = 20*time.Millisecond, 100*time.Millisecond, true
	})
	return rounds
}

// Random returns round number n of the sequence of a seed.
func Random(seed, n uint64) Round {
	d := rand.New(rand.NewPCG(seed, n))
	// All magnitudes are equally likely, because short times find most faults.
	size := func(limit uint64) uint64 { return d.Uint64N(limit) >> d.IntN(20) }
	r := Round{
		Plan: Plan{
			Seed:   d.Uint64N(1 << 60),
			Used:   d.IntN(80),
			Strike: 1 + d.IntN(256),
			Step:   1 + size(1<<16),
			Churn:  d.Uint64N(2) * (5000 + size(1<<20)),
			Hold:   d.Uint64N(2) * size(1<<26),
			Halves: d.IntN(2) == 0,
			Move:   d.IntN(4) == 0,
			Stale:  d.IntN(4) == 0,
		},
		ClearDelay: time.Duration(d.IntN(2)) * time.Millisecond * time.Duration(size(128)),
		ClearShift: []int{0, 6, 8, 11}[d.IntN(4)],
	}
	if d.IntN(4) == 0 {
		r.Bandwidth = 64<<20 + d.Int64N(1<<30)
	}
	if d.IntN(3) == 0 { // one at a time: some exclude each other
		r.Capabilities = []string{capabilities[d.IntN(len(capabilities))]}
	}
	if d.IntN(2) == 0 {
		r.PerMessage = 1 + int(size(1<<14))
	}
	if d.IntN(8) == 0 {
		r.Hold, r.HintTimeout, r.Late = lateHold, lateTimeout, d.IntN(2) == 0
	}
	if d.IntN(8) == 0 {
		r.DirtyRate = time.Duration(50+d.IntN(100)) * time.Millisecond
	}
	if r.HintTimeout == 0 && d.IntN(8) == 0 {
		r.Restart = true
	}
	if d.IntN(8) == 0 {
		r.ClearDelay = 100 * time.Millisecond
		r.CancelAfter = time.Duration(1+d.IntN(60)) * time.Millisecond
	}
	return r
}
