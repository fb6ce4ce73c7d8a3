// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Defaults of Config.
const (
	DefaultWait     = 5 * time.Minute
	DefaultPatience = 20 * time.Second
	DefaultQuiet    = 300 * time.Millisecond
	DefaultHold     = 3 * time.Second
)

// Config says where the device listens, and how long the driver may take.
type Config struct {
	// SocketPath is where the device listens for a vhost-user frontend.
	SocketPath string
	// Wait is how long a driver may take to start the queues, and an operator to
	// restart it. Zero means DefaultWait.
	Wait time.Duration
	// Patience is how long a driver may take for a step that a rule requires. Zero
	// means DefaultPatience.
	Patience time.Duration
	// Quiet is how long the suite waits to see that nothing comes where nothing may
	// come. Zero means DefaultQuiet.
	Quiet time.Duration
	// Hold is how long the device leaves messages in the ring, to see whether
	// the guest goes on meanwhile. Zero means DefaultHold.
	Hold time.Duration
	// Features are feature bits that the device offers besides those that package
	// vhostuser offers for every device. RING_PACKED and IN_ORDER are possible.
	Features uint64
	// Control has functions that act on the guest. Any of them may be nil.
	Control Control
	// Progress gets a line at each step. It may be nil.
	Progress func(string)
	// Log may be nil.
	Log *zap.Logger
}

// Control has functions that act on the guest. A scenario is not played if a function
// that it needs is nil.
type Control struct {
	Pause, Resume func(context.Context) error // stop and continue the guest's CPUs
	Restart       func(context.Context) error // restart the driver: it initialises the device again
}

// NewSuite returns the suite for one driver.
func NewSuite(c Config) report.Suite {
	for value, standard := range map[*time.Duration]time.Duration{
		&c.Wait: DefaultWait, &c.Patience: DefaultPatience, &c.Quiet: DefaultQuiet, &c.Hold: DefaultHold,
	} {
		if *value == 0 {
			*value = standard
		}
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return &suite{c}
}

type suite struct{ c Config }

// Rules implements report.Suite.
func (*suite) Rules() []report.Rule { return AllRules() }

// Run implements report.Suite. It plays all scenarios whatever rules are selected:
// most rules apply in each of them.
func (u *suite) Run(ctx context.Context, selected []report.Rule, add func(report.Result)) error {
	d := newDevice(time.Now, u.c.Features)
	defer d.close()
	err := u.serve(ctx, d)
	d.mu.Lock()
	defer d.mu.Unlock()
	missed := "no scenario gave an occasion"
	for _, r := range selected {
		result := d.judge.result(r, missed)
		if err != nil && result.Outcome != report.Fail {
			result.Outcome, result.Detail = report.Error, fmt.Sprintf("the suite ended early: %v", err)
		}
		add(result)
	}
	return err
}

// endGrace is how long the vhost-user server may take to end after the suite.
const endGrace = 10 * time.Second

// serve plays all scenarios while the device is served.
func (u *suite) serve(ctx context.Context, d *device) error {
	l, err := vhostuser.Listen(u.c.SocketPath)
	if err != nil {
		return err
	}
	defer l.Close()
	server, err := vhostuser.NewServer(d.vhostUser(), u.c.Log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	served := make(chan error, 1)
	go func() {
		err := server.Serve(ctx, l)
		cancel(err)
		served <- err
	}()
	s := &session{device: d, c: u.c, ctx: ctx}
	err = s.play()
	cancel(context.Canceled)
	select {
	case serveErr := <-served:
		if !errors.Is(serveErr, context.Canceled) && err == nil {
			err = serveErr
		}
	case <-time.After(endGrace):
		err = errors.Join(err, fmt.Errorf("the device did not end in %v", endGrace))
	}
	return err
}

// play waits for the driver and plays the scenarios.
func (s *session) play() error {
	s.c.Progress(fmt.Sprintf("waiting for a driver on %s", s.c.SocketPath))
	if err := s.meet(); err != nil {
		return err
	}
	known := false
	s.locked(func() { known = s.judge.driver != nil })
	if !known {
		s.c.Progress("no HELLO came that can be understood: nothing is asked")
		return nil
	}
	all := scenarios()
	for i, sc := range all {
		refuses := false
		s.locked(func() { refuses = s.refuses() })
		if refuses && sc.asks {
			continue
		}
		s.c.Progress(fmt.Sprintf("scenario %d of %d: %s", i+1, len(all), sc.name))
		s.locked(func() { s.judge.scenario = sc.name; s.judge.note("scenario: %s", sc.name) })
		err := s.playOne(sc, refuses)
		switch impossible := notPossible(""); {
		case s.ctx.Err() != nil:
			return context.Cause(s.ctx)
		case errors.As(err, &impossible):
			s.c.Progress("not played: " + err.Error())
			s.locked(func() { s.judge.skip(err.Error(), sc.only...) })
		case err != nil && !errors.Is(err, errBroken) && !errors.Is(err, errStopped):
			return fmt.Errorf("scenario %q: %w", sc.name, err)
		case err != nil && !s.recovers():
			s.c.Progress(fmt.Sprintf("the driver is lost: %v", err))
			s.locked(func() {
				s.skipAll("the driver was lost in scenario %q", sc.name)
			})
			return nil
		}
	}
	return nil
}

// meet waits for a driver and its HELLO.
func (s *session) meet() error {
	if err := s.running(s.c.Wait); err != nil {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		return fmt.Errorf("no driver has started the queues in %v", s.c.Wait)
	}
	s.blame = ruleHello
	stranger := false
	s.locked(func() { s.judge.scenario, stranger = "start", s.judge.stranger })
	if stranger {
		s.blame = ruleWanted
		_ = s.wantHello(ruleWanted)
	} else if s.helloAfter(0, ruleHello) != nil {
		// The breach is recorded. The scenarios can be played if it sends one now.
		_ = s.wantHello(noRule)
	}
	s.locked(func() {
		if i := s.judge.driver; i == nil {
			s.skipAll("no HELLO came that can be understood")
		} else if i.refuses() {
			s.skipAll("the driver refuses to report: %v, features %v, %q", i.status, i.Features, i.Reason)
		}
	})
	return context.Cause(s.ctx)
}

// attempts is how often a scenario is played when the queues stop in it.
const attempts = 3

// patienceTimes bounds a scenario: all its steps together may take this many times
// Patience.
const patienceTimes = 10

// playOne plays a scenario, and then asks an ordinary question.
func (s *session) playOne(sc scenario, refuses bool) error {
	defer s.setPace(paceAtOnce, nil)
	bound := patienceTimes * s.c.Patience
	if sc.waits {
		bound += s.c.Wait
	}
	outer := s.ctx
	ctx, cancel := context.WithTimeout(outer, bound)
	defer cancel()
	s.ctx = ctx
	defer func() { s.ctx = outer }()
	s.blame = sc.blame
	err := s.attempt(sc, refuses)
	if ctx.Err() != nil && outer.Err() == nil {
		s.locked(func() {
			s.judge.broke(sc.blame,
				"the driver is so slow that the scenario did not end in %v", bound)
		})
		return errBroken
	}
	return err
}

// attempt plays a scenario, again if the queues stop in it.
func (s *session) attempt(sc scenario, refuses bool) error {
	for attempt := 1; ; attempt++ {
		err := sc.play(s)
		s.setPace(paceAtOnce, nil)
		if err == nil {
			s.locked(func() { s.judge.saw(sc.blame) })
			if refuses {
				err = s.wantHello(sc.blame)
			} else {
				err = s.probe()
			}
		}
		if !errors.Is(err, errStopped) || attempt == attempts {
			return err
		}
		if err := s.running(s.c.Wait); err != nil {
			return fmt.Errorf("%w for more than %v", errStopped, s.c.Wait)
		}
	}
}

// recovers says whether a driver that has broken a rule still answers.
func (s *session) recovers() bool {
	s.blame = noRule
	return s.running(s.c.Patience) == nil && s.wantHello(noRule) == nil && s.probe() == nil
}

// skipAll records why the rules have no occasion from now on.
func (s *session) skipAll(format string, args ...any) {
	for _, r := range AllRules() {
		s.judge.skip(fmt.Sprintf(format, args...), r.ID)
	}
}
