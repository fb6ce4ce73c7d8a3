// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/program"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

var errFake = errors.New("no good")

// fakeSnapshot is a snapshot whose programs fail as its fields say.
type fakeSnapshot struct {
	walk.Walker
	canWalk bool
	trial   error
	lost    bool // an error leaves nothing attached
	restore error
}

func (s *fakeSnapshot) CanWalk() bool { return s.canWalk }

func (s *fakeSnapshot) Use(_ *ebpf.Program, _ func(string) bool, commit func() error) error {
	err := s.trial
	if err == nil {
		err = commit()
	}
	if err == nil {
		s.canWalk = true
	} else if s.lost {
		s.canWalk = false
	}
	return err
}

func (s *fakeSnapshot) Restore() error { s.canWalk = s.restore == nil; return s.restore }

func mustPrograms(t *testing.T, s *fakeSnapshot, status protocol.Status) *Programs {
	t.Helper()
	newest, err := program.OpenNewest(filepath.Join(t.TempDir(), "accepted"))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := program.ParsePolicy(
		fmt.Appendf(nil, `{"pinned": [%q]}`, testOffer.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	return &Programs{
		lg: zap.NewNop(), judge: program.NewJudge(policy, newest), snapshot: s,
		builtIn: agent.Guest{Status: status}, endless: make(map[protocol.Digest]struct{}),
		kept: make(map[protocol.ProgramKind]kept),
	}
}

var testOffer = &protocol.Offer{Digest: protocol.Digest{1}, Kind: protocol.KindWalk, Size: 9}

// What the guest says is what is attached, also where a program has failed.
func TestGuestIsWhatIsAttached(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot fakeSnapshot
		builtIn  protocol.Status
		restore  bool // instead of Use
		want     protocol.Status
		fails    bool
	}{
		"a program that works": {},
		"the first one": {
			builtIn: protocol.StatusUnsupported, want: protocol.StatusOK},
		"a trial that fails": {
			snapshot: fakeSnapshot{canWalk: true, trial: errFake}, fails: true},
		"a trial that fails, and so does the way back": {
			snapshot: fakeSnapshot{canWalk: true, trial: errFake, lost: true},
			want:     protocol.StatusFailed, fails: true},
		"the same, without a built-in program": {
			snapshot: fakeSnapshot{canWalk: true, trial: errFake, lost: true},
			builtIn:  protocol.StatusUnsupported, want: protocol.StatusUnsupported, fails: true},
		"a restored one": {restore: true},
		"one that cannot be restored": {
			snapshot: fakeSnapshot{canWalk: true, restore: errFake}, restore: true,
			want: protocol.StatusFailed, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustPrograms(t, &c.snapshot, c.builtIn)
			use := func() (agent.Guest, walk.Walker, error) {
				return p.Use(testOffer, 1, &ebpf.Program{})
			}
			if c.restore {
				use = p.Restore
			}
			guest, walker, err := use()
			if (err != nil) != c.fails || guest.Status != c.want {
				t.Errorf("status %v, error %v, want %v", guest.Status, err, c.want)
			}
			if (walker != nil) != (c.want == protocol.StatusOK) {
				t.Errorf("walker %v with status %v", walker, guest.Status)
			}
			if guest.Status == protocol.StatusFailed && guest.Hello.Reason == "" {
				t.Error("there is no reason")
			}
		})
	}
}

// A load takes time, in which the owner may take a key away, or a signature expire.
func TestPolicyIsAskedAgainAtTheCommit(t *testing.T) {
	s := &fakeSnapshot{canWalk: true}
	p := mustPrograms(t, s, protocol.StatusOK)
	if err := p.Check(testOffer, 1); err != nil {
		t.Fatal(err)
	}
	p.judge.Policy.Pinned, p.judge.Policy.KeyDir = nil, t.TempDir()
	if _, _, err := p.Use(testOffer, 1, &ebpf.Program{}); !errors.Is(err, program.ErrUntrusted) {
		t.Fatalf("error %v, want %v", err, program.ErrUntrusted)
	}
}

type closes int

func (c *closes) Close() error { *c++; return nil }

func TestWhatIsNoProgramIsClosed(t *testing.T) {
	p := mustPrograms(t, &fakeSnapshot{canWalk: true}, protocol.StatusOK)
	var closed closes
	_, walker, err := p.Use(testOffer, 1, &closed)
	if err == nil || closed != 1 || walker == nil {
		t.Fatalf("error %v, closed %d times, walker %v", err, closed, walker)
	}
}

// fakeCounter is a census that was loaded.
type fakeCounter struct{ closes }

func (*fakeCounter) Count(context.Context) (protocol.CensusReport, error) {
	return protocol.CensusReport{Runs: 7}, nil
}

// A census takes the place of the one before, unless the policy refuses it at the last moment.
// The walk stays what it is.
func TestCensusIsUsedReplacedAndDropped(t *testing.T) {
	p := mustPrograms(t, &fakeSnapshot{canWalk: true}, protocol.StatusOK)
	offer := *testOffer
	offer.Kind = protocol.KindCensus
	if _, err := p.Count(t.Context()); !errors.Is(err, errNotKept) {
		t.Errorf("without one: %v", err)
	}
	var first, second, refused fakeCounter
	for _, c := range []*fakeCounter{&first, &second} {
		if err := p.Keep(&offer, 1, c); err != nil {
			t.Fatal(err)
		}
	}
	var other closes
	if err := p.Keep(&offer, 1, &other); err == nil || other != 1 {
		t.Errorf("what is no census: %v, closed %d times", err, other)
	}
	pinned := p.judge.Policy.Pinned
	p.judge.Policy.Pinned, p.judge.Policy.KeyDir = nil, t.TempDir()
	if err := p.Keep(&offer, 1, &refused); !errors.Is(err, program.ErrUntrusted) {
		t.Errorf("one that is refused: %v", err)
	}
	p.judge.Policy.Pinned = pinned
	if first.closes != 1 || second.closes != 0 || refused.closes != 1 {
		t.Errorf("closed %d, %d and %d times", first.closes, second.closes, refused.closes)
	}
	if r, err := p.Count(t.Context()); err != nil || r.Runs != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := p.Drop(protocol.KindCensus); err != nil || second.closes != 1 {
		t.Errorf("%v, closed %d times", err, second.closes)
	}
	if _, err := p.Count(t.Context()); !errors.Is(err, errNotKept) {
		t.Errorf("after it was dropped: %v", err)
	}
}

// endlessCensus is a census of which no run ends.
type endlessCensus struct{ closes }

func (*endlessCensus) Count(context.Context) (protocol.CensusReport, error) {
	return protocol.CensusReport{}, pagerun.ErrEndless
}

// A host may offer a program that does not end again and again.
func TestEndlessCensusIsNotLoadedAgain(t *testing.T) {
	p := mustPrograms(t, &fakeSnapshot{canWalk: true}, protocol.StatusOK)
	o := *testOffer
	o.Kind = protocol.KindCensus
	if err := p.Keep(&o, 1, &endlessCensus{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Count(t.Context()); !errors.Is(err, pagerun.ErrEndless) {
		t.Fatal(err)
	}
	if err := p.Drop(protocol.KindCensus); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Load(t.Context(), &o, nil); !errors.Is(err, pagerun.ErrEndless) {
		t.Errorf("loaded again: %v", err)
	}
}
