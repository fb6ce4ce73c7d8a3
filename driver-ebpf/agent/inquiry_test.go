// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// newCensusHost returns a host that offers a walk and a census, and programs that take both.
func newCensusHost(t *testing.T) (*host, *fakePrograms) {
	h := newHost(t, 9000)
	h.census = true
	return h, &fakePrograms{
		builtIn: newFakeWalker(fakeStep{records: 2, state: walk.Done}),
		pushed:  newFakeWalker(fakeStep{records: 3, state: walk.Done}),
		kinds:   protocol.KindCensus.Mask(),
		kept:    make(map[protocol.ProgramKind]int),
		dropped: make(map[protocol.ProgramKind]int),
		counts: func(context.Context) (protocol.CensusReport, error) {
			r := protocol.CensusReport{Runs: 4}
			r.Counts[1][0] = 77
			return r, nil
		},
	}
}

func wantAnswers(t *testing.T, h *host, want ...string) {
	t.Helper()
	var got []string
	for _, r := range h.answers {
		if r.Digest != censusDigest || r.Failed != (r.Runs == 0) || r.Failed == (r.Counts[1][0] == 77) {
			t.Errorf("the answer is %+v", r)
		}
		got = append(got, r.Reason)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A device offers all that it has at once. One program is fetched after the other, and none
// takes the place of one of another kind.
func TestWalkAndCensusAreBothTaken(t *testing.T) {
	h, p := newCensusHost(t)
	h.on["census active"] = func() { h.count(5); h.events <- ask(7) }
	h.on["counted"] = func() { h.withdraw() }
	h.play(p, testGuest)
	wantStates(t, h, "fetching", "census fetching", "loading", "active",
		"census fetching", "census loading", "census active", "withdrawn")
	wantAnswers(t, h, "")
	if h.answers[0].Number != 5 || p.kept[protocol.KindCensus] != 1 || p.restored != 1 ||
		len(p.dropped) != 0 {
		t.Errorf("%+v; %v used, %d restored, %v dropped", h.answers[0], p.kept, p.restored,
			p.dropped)
	}
}

// What cannot be counted is answered, and why.
func TestCountThatFails(t *testing.T) {
	withdraw := func(h *host) {
		h.send(protocol.ProgramEvent{Type: protocol.EventWithdraw, Digest: censusDigest})
	}
	endless := func(ctx context.Context) (protocol.CensusReport, error) {
		<-ctx.Done()
		return protocol.CensusReport{}, context.Cause(ctx)
	}
	for name, c := range map[string]struct {
		counts func(context.Context) (protocol.CensusReport, error) // nil: as usual
		do     func(*host)                                          // when the census is in use
		want   []string
	}{
		"by its program": {
			counts: func(context.Context) (protocol.CensusReport, error) {
				return protocol.CensusReport{}, errors.New("no good")
			},
			do: func(h *host) { h.count(1) }, want: []string{"no good"},
		},
		"after a withdrawal": {
			do: func(h *host) { withdraw(h); h.count(1) }, want: []string{errNotInUse.Error()},
		},
		"by a withdrawal": {
			counts: endless, do: func(h *host) { h.count(1); withdraw(h) },
			want: []string{errStopped.Error()},
		},
		"by a migration": {
			counts: endless, do: func(h *host) { h.count(1); h.events <- ask(7) },
			want: []string{errMigration.Error()},
		},
		"because it takes too long": {
			counts: endless, do: func(h *host) { h.count(1) }, want: []string{errInquiryLate.Error()},
		},
		"because the device has given it up, as it asks again": {
			counts: endless, do: func(h *host) { h.count(1); h.count(2); h.count(3) },
			want: []string{errGivenUp.Error(), errGivenUp.Error(), errInquiryLate.Error()},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, p := newCensusHost(t)
			if c.counts != nil {
				p.counts = c.counts
			}
			h.on["census active"] = func() { c.do(h) }
			h.play(p, testGuest)
			wantAnswers(t, h, c.want...)
		})
	}
}

// A census of a session that has ended is not sent in the next.
func TestCountOfAnEarlierSession(t *testing.T) {
	h, p := newCensusHost(t)
	counted := make(chan struct{})
	p.counts = func(ctx context.Context) (protocol.CensusReport, error) {
		<-counted
		return protocol.CensusReport{Runs: 1}, nil
	}
	h.on["census active"] = func() {
		h.count(1)
		h.on["census active"] = func() { close(counted) }
		h.events <- protocol.Event{
			Type: protocol.EventChanged, Flags: protocol.EventHelloWanted,
		}
	}
	h.play(p, testGuest)
	wantAnswers(t, h)
}

// The device that has asked has gone: a count for it would keep the next from counting.
func TestCountOfAnEarlierSessionIsStopped(t *testing.T) {
	h, p := newCensusHost(t)
	var why error
	p.counts = func(ctx context.Context) (protocol.CensusReport, error) {
		<-ctx.Done()
		why = context.Cause(ctx)
		return protocol.CensusReport{}, why
	}
	h.on["census active"] = func() {
		h.count(1)
		h.events <- protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted}
	}
	h.play(p, testGuest)
	wantAnswers(t, h)
	if !errors.Is(why, errNewDevice) {
		t.Errorf("it ended by %v", why)
	}
}

// A migration may wait for the walk: a census that is on its way begins anew after it.
func TestWalkIsFetchedBeforeACensus(t *testing.T) {
	h, p := newCensusHost(t)
	h.last = true
	h.play(p, testGuest)
	wantStates(t, h, "census fetching", "fetching", "loading", "active",
		"census fetching", "census loading", "census active")
}

// A walk of which the session has ended is not refused because a census is offered first.
func TestCensusOfTheNextSessionRefusesNoWalk(t *testing.T) {
	h, p := newCensusHost(t)
	h.on["census fetching"] = func() { // the walk is half fetched
		h.last = true
		h.events <- protocol.Event{Type: protocol.EventChanged, Flags: protocol.EventHelloWanted}
	}
	h.play(p, testGuest)
	for _, r := range h.reports {
		if r.State == protocol.ProgramRefused {
			t.Errorf("%v is refused: %s", r.Kind, r.Reason)
		}
	}
	if p.kept[protocol.KindCensus] != 1 || len(p.nonces) != 2 {
		t.Errorf("states %v", h.states)
	}
}
