// SPDX-License-Identifier: Apache-2.0

package localise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
)

// fake is memory all of which is far, and notes what is moved.
type fake struct {
	name  string
	size  uint64 // of a page
	moves *[]string
	fail  error
	gone  error
}

func (f *fake) prefer(node int) error {
	*f.moves = append(*f.moves, fmt.Sprintf("%s prefers %d", f.name, node))
	return nil
}

func (f *fake) bring(offset, length uint64, node int) (Counts, error) {
	if f.fail != nil {
		return Counts{Left: length}, f.fail
	}
	*f.moves = append(*f.moves, fmt.Sprintf("%s %d+%d", f.name, offset>>20, length>>20))
	return Counts{Moved: length}, nil
}

func (f *fake) same() error { return f.gone }

func (f *fake) pageSize() uint64 { return f.size }

func (f *fake) close() {}

// fakeJob is a job for a machine with 8 MiB from 0 on and 4 MiB from 100 MiB on.
func fakeJob(o Options, moves *[]string, size uint64) *job {
	j := newJob(o, new(placement.Memory))
	j.pieces = []piece{
		{placement.Region{GPA: 0, Length: 8 << 20}, &fake{name: "low", size: size, moves: moves}},
		{
			placement.Region{GPA: 100 << 20, Length: 4 << 20},
			&fake{name: "high", size: size, moves: moves},
		},
	}
	return j
}

func mib(gpa, length uint64) freeset.Range {
	return freeset.Range{GPA: gpa << 20, Length: length << 20}
}

// some has a hot range in each region, and the rest around one of them.
func some() []placement.Ranges {
	return []placement.Ranges{
		{Class: placement.Hot, Ranges: []freeset.Range{mib(5, 1), mib(102, 1)}},
		{Class: placement.Other, Ranges: []freeset.Range{mib(0, 5)}},
		{Class: placement.Cold, Ranges: []freeset.Range{mib(6, 1)}},
	}
}

func TestClassesAreMovedInOrder(t *testing.T) {
	var moves []string
	r, err := fakeJob(Options{Node: 3}, &moves, 4096).run(t.Context(), some())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"low prefers 3", "high prefers 3", // before anything is moved
		"low 5+1", "high 2+1", "low 0+2", "low 2+2", "low 4+1", "low 6+1",
	}
	if !slices.Equal(moves, want) {
		t.Errorf("%q, want %q", moves, want)
	}
	for class, moved := range map[placement.Class]uint64{
		placement.Hot: 2 << 20, placement.Other: 5 << 20, placement.Cold: 1 << 20,
	} {
		if got := r.Classes[class]; got != (Counts{Moved: moved}) {
			t.Errorf("%s: %+v", class, got)
		}
	}
	if r.Total() != (Counts{Moved: 8 << 20}) || r.Node != 3 {
		t.Errorf("the result is %+v", r)
	}
}

// A range may lie in several regions, and a huge page in several ranges.
func TestRangesAreMovedInWholePagesOfTheirRegion(t *testing.T) {
	var moves []string
	j := fakeJob(Options{}, &moves, 4<<20)
	j.pieces[1].GPA = 8 << 20 // right behind the first
	_, err := j.run(t.Context(), []placement.Ranges{
		{Class: placement.Hot, Ranges: []freeset.Range{mib(7, 2)}},
	})
	if want := []string{"low 4+4", "high 0+4"}; err != nil || !slices.Equal(moves[2:], want) {
		t.Errorf("%q and %v, want %q", moves[2:], err, want)
	}
}

func TestWhatIsMovedInASecondIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moves []string
		told := 0
		o := Options{Bandwidth: 1 << 20, Progress: func(r Result) {
			if told++; r.Seconds == 0 {
				t.Error("progress without a time")
			}
		}}
		r, err := fakeJob(o, &moves, 4096).run(t.Context(), some())
		if err != nil || r.Seconds != 8 {
			t.Errorf("8 MiB took %v s, and %v", r.Seconds, err)
		}
		if told != 1 {
			t.Errorf("progress was told of %d times in 8 s", told)
		}
	})
}

func TestWhoInterruptsLearnsWhatWasMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moves []string
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		r, err := fakeJob(Options{Bandwidth: 1 << 20}, &moves, 4096).run(ctx, some())
		if !errors.Is(err, context.DeadlineExceeded) || r.Total().Moved != 2<<20 {
			t.Errorf("%+v and %v", r, err)
		}
	})
}

func TestAnErrorEndsTheMove(t *testing.T) {
	var moves []string
	j := fakeJob(Options{}, &moves, 4096)
	j.pieces[1].file.(*fake).fail = unix.ENODEV
	r, err := j.run(t.Context(), some())
	if !errors.Is(err, unix.ENODEV) || r.Total() != (Counts{Moved: 1 << 20, Left: 1 << 20}) {
		t.Errorf("%+v and %v", r, err)
	}
}

// A VM that ends leaves its memory to nobody, and this must not keep it.
func TestAMoveEndsWithTheVM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moves []string
		j := fakeJob(Options{Bandwidth: 1 << 20}, &moves, 4096)
		j.pieces[1].file.(*fake).gone = errAnotherFile
		r, err := j.run(t.Context(), some())
		if !errors.Is(err, errAnotherFile) || r.Total().Moved > 2<<20 {
			t.Errorf("%+v and %v", r, err)
		}
	})
}

// Time in which nothing is moved does not add up to a burst.
func TestTheBandwidthIsNoMean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moves []string
		j := fakeJob(Options{Bandwidth: 1 << 20}, &moves, 4096)
		time.Sleep(time.Minute)
		begun := time.Now()
		_, err := j.run(t.Context(), some())
		if took := time.Since(begun); err != nil || took != 8*time.Second {
			t.Errorf("8 MiB took %v after a minute of rest, and %v", took, err)
		}
	})
}
