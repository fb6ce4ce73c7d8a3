// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

// fixed is a source that needs no guest.
type fixed struct {
	ask func(ctx context.Context, r source.Request, f *source.Findings) error
}

func (fixed) Name() string { return "fixed" }

func (s fixed) Ask(ctx context.Context, r source.Request, f *source.Findings) error {
	return s.ask(ctx, r, f)
}

// found says that 2 MiB are free.
func found(_ context.Context, r source.Request, f *source.Findings) error {
	if r.Memory == nil || len(r.Memory.Regions()) != 2 {
		return errors.New("no guest memory")
	}
	if f.Free.Frames() != 0 {
		return errors.New("the findings are not empty")
	}
	_, _, err := f.Free.Add([]freeset.Block{{First: 512, Count: 512}}, false)
	f.Items = 1
	f.Phases = []source.Phase{{Name: "look", Time: time.Millisecond}}
	return err
}

func TestAnotherSourceAnswersWhereTheDriverDoesNot(t *testing.T) {
	hello := func(status protocol.Status, features protocol.Features) func(*machine) {
		return func(m *machine) { m.hello(status, features) }
	}
	for _, tc := range []struct {
		name   string
		driver func(m *machine) // before the request
		report bool             // the driver answers with a bad report
		want   protocol.AnswerStatus
	}{
		{"no driver",
			func(m *machine) { m.expectEvent(protocol.EventChanged) }, false, protocol.AnswerOK},
		{"a driver that cannot read its kernel",
			hello(protocol.StatusLockdown, 0), false, protocol.AnswerOK},
		{"a guest that checks its free pages",
			hello(protocol.StatusContentMatters, 0), false, protocol.AnswerRefused},
		{"a guest that poisons free pages, and a driver that says OK",
			hello(protocol.StatusOK, protocol.FeaturePagePoison), false, protocol.AnswerRefused},
		{"a driver whose report is nonsense",
			hello(protocol.StatusOK, 0), true, protocol.AnswerOK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := mustBoot(t, device.Options{More: []source.Source{fixed{found}}})
			tc.driver(m)
			m.request(patience)
			if tc.report {
				g := m.expectEvent(protocol.EventReportFree).Generation
				m.post(last(g, protocol.MakeRecord(1024, 10), protocol.MakeRecord(513, 9)))
			}
			a := m.window.Answer(patience)
			if a.Status != tc.want {
				t.Fatalf("the answer is %v, want %v", a, tc.want)
			}
			if a.Status != protocol.AnswerOK {
				return
			}
			if want := []freeset.Range{{GPA: 512 << 12, Length: 512 << 12}}; !slices.Equal(a.Ranges, want) {
				t.Errorf("ranges %v, want %v without the driver's", a.Ranges, want)
			}
			if s := m.dev.Status().Last.Source; s != "fixed" || m.window.Source() != s {
				t.Errorf("the source is %q and %q", s, m.window.Source())
			}
			if m.window.Entries()["look"] != 1000 || m.dev.Status().Last.Phase("look") != time.Millisecond {
				t.Errorf("phases %v", m.window.Entries())
			}
		})
	}
}

func TestADriverThatAnswersIsTheOnlyOneAsked(t *testing.T) {
	m := mustBoot(t, device.Options{More: []source.Source{fixed{
		func(context.Context, source.Request, *source.Findings) error {
			t.Error("the other source was asked")
			return nil
		},
	}}})
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
}

// A source may notice late that its request was cancelled. Meanwhile it must not
// delay an answer, and its findings are dropped.
func TestARequestEndsWhileItsSourceStillRuns(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(m *machine)
		want protocol.AnswerStatus
	}{
		{"given up", (*machine).cancel, protocol.AnswerCancelled},
		{"switched off", func(m *machine) { m.dev.SetEnabled(false) }, protocol.AnswerDisabled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked, goOn := make(chan struct{}), make(chan struct{})
			slow := true
			m := mustBoot(t, device.Options{More: []source.Source{fixed{
				func(ctx context.Context, r source.Request, f *source.Findings) error {
					if slow { // sources are asked one at a time
						slow = false
						close(asked)
						<-goOn
						_, _, _ = f.Free.Add([]freeset.Block{{First: 1024, Count: 1}}, false)
						return ctx.Err()
					}
					return found(ctx, r, f)
				},
			}}})
			m.request(patience)
			<-asked
			tc.end(m)
			m.expect(tc.want)
			m.dev.SetEnabled(true)
			m.request(patience)
			close(goOn)
			status, ranges := m.answer()
			want := []freeset.Range{{GPA: 512 << 12, Length: 512 << 12}}
			if status != protocol.AnswerOK || !slices.Equal(ranges, want) {
				t.Fatalf("the next answer is %v, %v, want %v", status, ranges, want)
			}
		})
	}
}

// When all sources fail, the answer has the status of the first. The reason names
// all of them.
func TestErrorsOfSourcesAreJoined(t *testing.T) {
	broken := []source.Source{fixed{
		func(context.Context, source.Request, *source.Findings) error { return errors.New("broken") },
	}}
	for policy, want := range map[device.Policy]struct {
		status protocol.AnswerStatus
		why    string
	}{
		device.PolicyNone:  {protocol.AnswerInternal, "broken"},
		device.PolicyGuest: {protocol.AnswerNoDriver, "no driver said hello; fixed: broken"},
	} {
		m := mustBoot(t, device.Options{Source: policy, More: broken})
		m.request(patience)
		m.expect(want.status)
		if why := m.dev.Status().Last.Why; why != want.why {
			t.Errorf("%s: why is %q", policy, why)
		}
	}
}

func TestThePolicyChoosesTheSources(t *testing.T) {
	const silent = "the driver gave no sign of life"
	for policy, want := range map[device.Policy]struct {
		status protocol.AnswerStatus
		why    string // a prefix
		asked  bool   // whether the driver is asked
	}{
		"":                      {protocol.AnswerDriverTimeout, silent, true},
		device.PolicyGuest:      {protocol.AnswerDriverTimeout, silent, true},
		device.PolicyAuto:       {protocol.AnswerDriverTimeout, silent + "; introspect: ", true},
		device.PolicyIntrospect: {protocol.AnswerRefused, "locate the kernel: ", false},
		device.PolicyNone:       {protocol.AnswerDisabled, "no source may be asked", false},
	} {
		t.Run(string(policy), func(t *testing.T) {
			m := mustBoot(t, device.Options{Source: policy})
			m.hello(protocol.StatusOK, 0)
			m.request(patience) // a silent driver is given up after a quarter
			m.expect(want.status)
			if why := m.dev.Status().Last.Why; !strings.HasPrefix(why, want.why) {
				t.Errorf("why is %q", why)
			}
			for asked := false; ; {
				used, ok := m.events.Poll()
				if !ok {
					if asked != want.asked {
						t.Errorf("the driver was asked: %v", asked)
					}
					return
				}
				e, err := protocol.DecodeEvent(m.guest.Read(m.buffers[used.Head], protocol.EventSize))
				m.must(err)
				asked = asked || e.Type == protocol.EventReportFree
			}
		})
	}
}

func TestPolicyIsAFlagValue(t *testing.T) {
	for _, want := range device.Policies() {
		var p device.Policy
		if err := p.Set(string(want)); err != nil || p != want || p.String() != string(want) {
			t.Errorf("%q: %v, %v", want, p, err)
		}
	}
	var p device.Policy
	if err := p.Set("driver"); err == nil || p != "" {
		t.Errorf("%q was taken", p)
	}
}

func TestASourceLearnsWhichPagesWereWritten(t *testing.T) {
	pages := []freeset.Range{{GPA: 1 << 20, Length: 8 << 12}, {GPA: 4 << 20, Length: 2 << 12}}
	m := mustBoot(t, device.Options{More: []source.Source{fixed{
		func(ctx context.Context, r source.Request, f *source.Findings) error {
			for _, want := range [][]byte{{0b10, 0b1}, {0, 0b10}} {
				written, err := r.Written(ctx, pages)
				if err != nil || !slices.Equal(written, want) {
					return fmt.Errorf("written %b, %w, want %b", written, err, want)
				}
			}
			if _, err := r.Written(ctx, pages); err == nil {
				return errors.New("a peek that the frontend refuses has an answer")
			}
			return found(ctx, r, f)
		},
	}}})
	m.request(patience)
	for _, answer := range []struct {
		status uint32
		word   uint64
	}{{0, 0b1_0000_0010}, {0, 0b10_0000_0000}, {1, 0}} {
		generation, asked := m.window.AwaitPeek(patience)
		if generation != m.window.Asked() || !slices.Equal(asked, pages) {
			t.Fatalf("a peek of request %d at %v", generation, asked)
		}
		m.window.Signal() // spurious
		m.window.AnswerPeek(answer.status, answer.word)
	}
	if a := m.window.Answer(patience); a.Status != protocol.AnswerOK || len(a.Ranges) != 1 {
		t.Fatalf("the answer is %v: %s", a, m.dev.Status().Last.Why)
	}
}

func TestAPeekEndsWithItsRequest(t *testing.T) {
	ended := make(chan error, 1)
	m := mustBoot(t, device.Options{More: []source.Source{fixed{
		func(ctx context.Context, r source.Request, f *source.Findings) error {
			_, err := r.Written(ctx, []freeset.Range{{GPA: 1 << 20, Length: 1 << 12}})
			ended <- err
			return err
		},
	}}})
	for name, end := range map[string]func(){
		"given up":     m.cancel,
		"disconnected": m.fe.Close,
	} {
		m.request(patience)
		m.window.AwaitPeek(patience)
		end()
		if err := <-ended; err == nil {
			t.Errorf("%s: the peek has an answer", name)
		}
		if name == "disconnected" {
			m.connect()
		}
	}
}

// The frontend writes its answer to a peek into the slots for ranges. The next
// peek and the answer to the request use the same slots, so they wait for it.
func TestNothingIsWrittenOverAnOpenPeek(t *testing.T) {
	again := make(chan error, 1)
	m := mustBoot(t, device.Options{More: []source.Source{fixed{
		func(ctx context.Context, r source.Request, f *source.Findings) error {
			pages := []freeset.Range{{GPA: 1 << 20, Length: 1 << 12}}
			impatient, stop := context.WithTimeout(ctx, time.Millisecond)
			defer stop()
			if _, err := r.Written(impatient, pages); err == nil {
				return errors.New("a peek that nobody answers has an answer")
			}
			_, err := r.Written(ctx, pages)
			again <- err
			return found(ctx, r, f)
		},
	}}})
	m.request(patience)
	m.window.AwaitPeek(patience)
	if err := <-again; err == nil {
		t.Error("a second peek has an answer")
	}
	m.expect(protocol.AnswerInternal)
	if n := m.window.Word64(protocol.WindowPeekNumberOffset); n != 1 {
		t.Errorf("%d peeks, want 1", n)
	}
}

func TestThePausedGuestsDriverIsNotAsked(t *testing.T) {
	m := mustBoot(t, device.Options{More: []source.Source{fixed{
		func(ctx context.Context, r source.Request, f *source.Findings) error {
			if !r.Paused {
				return errors.New("not paused")
			}
			return found(ctx, r, f)
		},
	}}})
	m.hello(protocol.StatusOK, 0)
	m.window.AskPaused(patience)
	if status, ranges := m.answer(); status != protocol.AnswerOK || len(ranges) != 1 {
		t.Fatalf("the answer is %v, %v", status, ranges)
	}
}

func TestStatusShowsTheOutcomeOfAMigration(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
	if s := m.dev.Status(); s.Migration != nil {
		t.Fatalf("before the end of any migration there is one: %+v", s.Migration)
	}
	const incompatible = 2
	for _, tc := range []struct {
		result        protocol.MigrationResult
		hints         uint32
		shown, status string
	}{
		{protocol.MigrationFailed, 0, "failed", "ok"},
		{protocol.MigrationCancelled, 0, "cancelled", "ok"},
		{protocol.MigrationCompleted, incompatible, "completed", "incompatible"},
	} {
		changed := m.dev.Changed()
		m.window.Tell(1, tc.result, tc.hints, 4096)
		<-changed
		got := *m.dev.Status().Migration
		got.Ended = time.Time{}
		want := device.Migration{
			Result: tc.shown, Hints: tc.status, SkippedBytes: 4096, Cache: "send",
			Order: "used", Hybrid: "switched",
		}
		if got != want {
			t.Errorf("status tells %+v, want %+v", got, want)
		}
	}
}
