// SPDX-License-Identifier: Apache-2.0

package workingset

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun/pageruntest"
)

var errFake = errors.New("no good")

// newFake returns a sampler of a guest that has used these pages, and when its lists were aged.
// The program notes odd pages at the first look, and relies on that.
func newFake(used ...uint64) (*Sampler, *pageruntest.Program, *[]time.Time) {
	r, p := pageruntest.New(mapSize, pagerun.Span{Start: 1, End: 3*window + 7},
		pagerun.Span{Start: 3*window + 9, End: 3*window + 11},
		pagerun.Span{Start: 8*window + 100, End: 9 * window})
	aged := new([]time.Time)
	s := &Sampler{r, func(context.Context) error {
		*aged = append(*aged, time.Now())
		return nil
	}, func() (func() error, error) { return func() error { return nil }, nil }}
	p.Visit = func(from, n uint64) {
		before, noted := r.Memory(atBefore, atNoted), r.Memory(atNoted, mapSize)
		for _, at := range used {
			if at < from || at >= from+n {
				continue
			}
			index, bit := at%window/8, byte(1<<(at%8))
			odd := byte(0)
			if at%2 == 1 {
				odd = bit
			}
			switch look := r.Word(atLook); {
			case look == firstLook:
				noted[index] |= odd
			case look == secondLook && before[index]&bit == odd:
				noted[index] |= bit
			}
		}
	}
	return s, p, aged
}

// pagesOf returns the page frames that a sampler finds.
func pagesOf(ctx context.Context, s *Sampler) (found []uint64, work pagerun.Work, err error) {
	work, err = s.Sample(ctx, time.Second, func(from uint64, hot, free []byte) error {
		if from%window != 0 || len(hot) != window/8 {
			return errFake
		}
		for i := range uint64(window) {
			if hot[i/8]>>(i%8)&1 != 0 {
				found = append(found, from+i)
			}
		}
		return nil
	})
	return found, work, err
}

// What is free is passed on with what was used, and by itself.
func TestFreePagesArePassedOn(t *testing.T) {
	s, p, _ := newFake(5)
	use := p.Visit
	p.Visit = func(from, n uint64) {
		use(from, n)
		if at := uint64(window + 9); from <= at && at < from+n {
			s.Memory(atUnused, mapSize)[9/8] |= 1 << (9 % 8)
		}
	}
	found := make(map[uint64][2]bool)
	_, err := s.Sample(t.Context(), 0, func(from uint64, hot, free []byte) error {
		found[from] = [2]bool{anySet(hot), anySet(free)}
		return nil
	})
	want := map[uint64][2]bool{0: {true, false}, window: {false, true}}
	if err != nil || !maps.Equal(found, want) {
		t.Errorf("windows from %v, %v, want %v", found, err, want)
	}
}

// Only windows with pages that were used are passed on, and nothing of an earlier sample.
func TestPagesThatWereUsedAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := []uint64{1, 2*window - 1, 3*window + 6, 3*window + 9, 8*window + 101}
		s, p, aged := newFake(want...)
		for range 2 {
			*aged, p.Runs = nil, 0
			got, work, err := pagesOf(t.Context(), s)
			if err != nil || !slices.Equal(got, want) || work.Runs != 12 || p.Runs != 12 {
				t.Errorf("got %v in %d runs, %v, want %v", got, work.Runs, err, want)
			}
			if len(*aged) != 2 || (*aged)[1].Sub((*aged)[0]) != time.Second {
				t.Errorf("the lists were aged at %v", *aged)
			}
		}
	})
}

// Nothing is passed on after an error, wherever it comes from.
func TestSampleThatFails(t *testing.T) {
	for name, c := range map[string]func(*Sampler, *pageruntest.Program, context.CancelCauseFunc){
		"lists that cannot be aged": func(s *Sampler, _ *pageruntest.Program, _ context.CancelCauseFunc) {
			s.age = func(context.Context) error { return errFake }
		},
		"a program that fails": func(_ *Sampler, p *pageruntest.Program, _ context.CancelCauseFunc) {
			p.Result = func(int) (uint32, error) { return 0, errFake }
		},
		"bits that make no sense": func(s *Sampler, p *pageruntest.Program, _ context.CancelCauseFunc) {
			p.Visit = func(uint64, uint64) { s.Put(atWrong, 7); s.Put(atRight, 100) }
		},
		"an end while the guest is watched": func(
			_ *Sampler, _ *pageruntest.Program, cancel context.CancelCauseFunc,
		) {
			time.AfterFunc(time.Millisecond, func() { cancel(errFake) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p, _ := newFake(1)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				c(s, p, cancel)
				got, _, err := pagesOf(ctx, s)
				if !errors.Is(err, errFake) && !errors.Is(err, errBits) || got != nil {
					t.Errorf("got %v, %v", got, err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s, p, _ := newFake(1, window)
		_, err := s.Sample(t.Context(), 0, func(uint64, []byte, []byte) error { return errFake })
		if !errors.Is(err, errFake) || p.Runs != 7 {
			t.Errorf("who takes the parts fails: %v after %d runs", err, p.Runs)
		}
	})
}
