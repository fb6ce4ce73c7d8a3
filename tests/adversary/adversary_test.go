// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// hangTimeout ends a round that hangs. It asserts no speed: on an idle machine a round
// takes about a second.
const hangTimeout = 2 * time.Minute

// machine is a named accelerator with its options.
type machine struct {
	name string
	Options
}

var machines = []machine{
	{"TCG", Options{Accel: vm.TCG}},
	{"KVM, dirty log", Options{Accel: vm.KVM}},
	{"KVM, dirty ring", Options{Accel: vm.KVM, DirtyRing: true}},
}

// mustBoot boots a guest, which ends with the test. It skips the test if this host
// cannot run the guest.
func mustBoot(t *testing.T, o Options) *Guest {
	t.Helper()
	if o.Accel == vm.KVM {
		lab.NeedKVM(t, o.DirtyRing)
	}
	o.MemoryMiB, o.CPUs = *memory, *cpus
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	g, err := Boot(ctx, parts, rom, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// play plays a round, and checks what has to hold also if pages are lost: the status of
// the hints is one that the round allows, pages were compared, and the test and the
// guest find the same number of lost pages.
func play(t *testing.T, g *Guest, r Round) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	result, err := g.Play(ctx, r)
	if err != nil {
		t.Fatalf("%v\n%v", r, err)
	}
	requireHeard(t, r, result)
	if result.Compared == 0 || result.Verified == 0 {
		t.Fatalf("%v\n%d pages were compared from outside, %d by the guest",
			r, result.Compared, result.Verified)
	}
	if n := len(result.Outside); uint64(n) != result.Inside {
		t.Errorf("%v\n%d pages are lost as seen from outside, %d as seen by the guest",
			r, n, result.Inside)
	}
	return result
}

// requireHeard checks that the exchange with the guest ended as the round says.
func requireHeard(t *testing.T, r Round, result *Result) {
	t.Helper()
	hints := result.Migration.Hints
	if hints == nil || !slices.Contains(r.statuses(), hints.Status) ||
		(hints.Status == "ok") != (hints.Skipped > 0) {
		t.Fatalf("%v\nthe exchange ended with %+v, want one of %q", r, hints, r.statuses())
	}
}

func mustStatus(t *testing.T, g *Guest) map[string]uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	status, err := g.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// requireWhole checks that nothing was lost.
func requireWhole(t *testing.T, r Round, result *Result) {
	t.Helper()
	if !result.Lost() {
		return
	}
	for _, l := range result.Outside[:min(10, len(result.Outside))] {
		t.Log(l)
	}
	for m, n := range result.LostAt {
		if n > 0 {
			t.Logf("%d pages written %s are lost, of %d", n, momentName(m), result.Struck[m])
		}
	}
	t.Fatalf("%v\nlost %d of %d pages as seen from outside, %d of %d as seen by the guest",
		r, len(result.Outside), result.Compared, result.Inside, result.Verified)
}

// strikes counts the pages that were written, by moment.
type strikes [moments]uint64

func (s *strikes) add(r *Result) {
	for i, n := range r.Struck {
		s[i] += n
	}
}

// require checks that there were some at each moment.
func (s *strikes) require(t *testing.T) {
	t.Helper()
	for i := momentEvent; i <= momentChurn; i++ {
		if s[i] == 0 {
			t.Errorf("no page was written %s", momentName(i))
		}
	}
}

// requireNoneBefore checks that only pages are lost that were written after the question.
func requireNoneBefore(t *testing.T, r *Result) {
	t.Helper()
	if n := r.LostAt[momentBefore]; n > 0 {
		t.Errorf("%d pages are lost that were written before the guest was asked", n)
	}
}

func TestNoPageIsLost(t *testing.T) {
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			g := mustBoot(t, m.Options)
			var struck strikes
			for _, r := range Sweep() {
				result := play(t, g, r)
				requireWhole(t, r, result)
				struck.add(result)
			}
			struck.require(t)
			if starts := mustStatus(t, g)["starts"]; starts < 4 {
				t.Errorf("the driver was started %d times only, and moved its rings too seldom", starts)
			}
			for n := range *rounds {
				if n > 0 && n%50 == 0 {
					t.Logf("%d of %d random rounds", n, *rounds)
				}
				r := Random(*seed, uint64(n))
				requireWhole(t, r, play(t, g, r))
			}
		})
	}
}

// distances are the rounds of the sweep that differ only in the time from the report
// to the strikes.
func distances() []Round { return Sweep()[:9] }

// Without arming, QEMU clears the dirty log after the guest's answer, as it does for
// virtio-balloon. Pages that were written in between are lost. This shows that
// TestNoPageIsLost can fail.
func TestWithoutArmingPagesAreLost(t *testing.T) {
	for _, m := range machines[:2] {
		t.Run(m.name, func(t *testing.T) {
			m.NoArming = true
			g := mustBoot(t, m.Options)
			for _, r := range distances() {
				result := play(t, g, r)
				if !result.Lost() {
					continue
				}
				requireNoneBefore(t, result)
				lost := result.Outside
				t.Logf("%d of %d pages are lost, such as %v", len(lost), result.Compared, lost[0])
				return
			}
			t.Fatal("no page was lost: the adversary does not tell an armed migration from another")
		})
	}
}

// With KVM's dirty ring a page is write-protected from the start of logging, and KVM
// records writes in the ring, which clearing the bitmap does not change. So nothing is
// lost without arming.
func TestDirtyRingProtectsFromTheStart(t *testing.T) {
	m := machines[2]
	m.NoArming = true
	g := mustBoot(t, m.Options)
	for _, r := range distances() {
		requireWhole(t, r, play(t, g, r))
	}
}

func TestDriverIsSwitchedOffAndOn(t *testing.T) {
	g := mustBoot(t, Options{Accel: vm.TCG})
	r := Round{Plan: Plan{Seed: 1, Used: 25, Strike: 16, Step: 1000}}
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	for _, on := range []bool{false, true} {
		if _, err := g.Backend.Control.SetEnabled(ctx, on); err != nil {
			t.Fatal(err)
		}
		want := map[bool]uint64{true: 1}[on]
		for mustStatus(t, g)["enabled"] != want {
			if ctx.Err() != nil {
				t.Fatalf("enabled %v: the guest never heard of it", on)
			}
		}
		result, err := g.Play(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		requireWhole(t, r, result)
		status := map[bool]string{false: "backend-disabled", true: "ok"}[on]
		if result.Migration.HintStatus() != status {
			t.Errorf("enabled %v: the hints ended with %+v, want %s",
				on, result.Migration.Hints, status)
		}
	}
}

func TestRandomRoundsFollowFromTheirSeed(t *testing.T) {
	a, b := Random(1, 2), Random(1, 2)
	if a.String() != b.String() {
		t.Fatalf("one seed, two rounds:\n%v\n%v", a, b)
	}
	if c := Random(2, 2); a.String() == c.String() {
		t.Fatalf("two seeds, one round: %v", a)
	}
}

func TestAnswers(t *testing.T) {
	a, err := parseAnswer("lost=3 lost.1=1 lost.25=2 ")
	if err != nil {
		t.Fatal(err)
	}
	if by := a.byMoment("lost"); a["lost"] != 3 || by[momentEvent] != 1 || by[momentChurn] != 2 {
		t.Fatalf("got %v, by moment %v", a, by)
	}
	for _, bad := range []string{"lost", "lost=", "lost=x", "=", "lost=-1"} {
		if a, err := parseAnswer(bad); err == nil {
			t.Errorf("%q is understood as %v", bad, a)
		}
	}
}

// Page 1 is the table, page 2 is allocated and not written, page 3 is in use.
func TestCompareSkipsPagesWithoutContents(t *testing.T) {
	source := ram(make([]byte, 4*pageSize))
	table := uint64(pageSize)
	for _, used := range []uint64{0, 1, 3} {
		source[table+used*entrySize+4] = stateUsed
	}
	source[table+2*entrySize+4] = 1
	source[table+3*entrySize], source[table+3*entrySize+5] = 7, momentWalk
	destination := slices.Clone(source)
	for i := range destination.page(2) {
		destination.page(2)[i] = byte(rand.Uint())
	}
	if lost, used := compare(source, destination, table); len(lost) != 0 || used != 3 {
		t.Fatalf("lost %v of %d pages, want none of 3", lost, used)
	}
	destination.page(3)[pageSize-1] ^= 1
	want := Loss{PFN: 3, Generation: 7, Moment: momentWalk, Offset: pageSize - 1, Bytes: 1}
	if lost, _ := compare(source, destination, table); !slices.Equal(lost, []Loss{want}) {
		t.Fatalf("lost %v, want %v", lost, want)
	}
}
