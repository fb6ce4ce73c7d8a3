// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Plan says what to measure.
type Plan struct {
	Rounds int
	Gbit   []float64     // bandwidths; 0: no limit
	Limit  time.Duration // after which a migration is cancelled, as it may never end
	// Ready waits until a migration would be told what is free.
	Ready func(ctx context.Context) error
	// Progress is told of each migration before it begins.
	Progress func(line string)
}

// answerTimeout bounds the wait for QEMU's answer to a command.
const answerTimeout = 30 * time.Second

// Measure migrates the VM by turns without and with hints, to a place on this host that throws
// away what it gets. After each migration the guest goes on here, where QEMU has stopped it. So
// no other QEMU is needed, and the VM's disks are left alone.
//
// Measure changes settings of migration, and sets them back. It does so, and has the guest go
// on, whatever happens; if QEMU does not answer any more, the error says what is left to do.
func Measure(ctx context.Context, m Monitor, p Plan) (all []Migration, err error) {
	s := session{Monitor: m, plan: p}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
		defer cancel()
		err = errors.Join(err, s.end(after))
	}()
	for round := range p.Rounds {
		for _, gbit := range p.Gbit {
			for _, hints := range []bool{false, true} {
				method := methodOf(hints, s.balloon)
				p.Progress(fmt.Sprintf("round %d of %d: %s", round+1, p.Rounds, method))
				one, err := s.migrate(ctx, hints, gbit)
				if err != nil {
					return all, fmt.Errorf("migrate with %s: %w", method, err)
				}
				one.Method, one.Gbit = method, gbit
				all = append(all, one)
			}
		}
	}
	return all, nil
}

// session is a QEMU whose migrations are measured.
type session struct {
	Monitor
	plan    Plan
	device  string // its path
	balloon bool   // free-page-hint is on

	// What was set before.
	hints        bool
	capabilities []capability
	parameters   parameters
}

type capability struct {
	Name string `json:"capability"`
	On   bool   `json:"state"`
}

type parameters struct {
	Bandwidth uint64 `json:"max-bandwidth"`
	TLS       string `json:"tls-creds"`
}

// unfit are capabilities that need a destination that answers, or a file.
var unfit = map[string]bool{
	"postcopy-ram": true, "return-path": true, "multifd": true, "mapped-ram": true,
	"rdma-pin-all": true, "x-colo": true, "background-snapshot": true, "switchover-ack": true,
	"pause-before-switchover": true, "x-ignore-shared": true,
}

// do runs a command, also after ctx has ended: a command that was begun has to be answered, or
// the connection is lost, and with it the guest that stands still.
func (s *session) do(ctx context.Context, command string, args, result any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	return s.Execute(ctx, command, args, result)
}

// begin checks that the VM can be measured, and prepares its settings.
func (s *session) begin(ctx context.Context) error {
	state, err := s.state(ctx)
	if err != nil {
		return err
	}
	if state != "running" {
		return fmt.Errorf("the VM is %s: it has to run", state)
	}
	before, err := s.query(ctx)
	if err != nil {
		return err
	}
	if before.Status != "" && !before.ended() {
		return errors.New("the VM is being migrated")
	}
	if s.device = findDevice(ctx, s, "vhost-user-fbpp"); s.device == "" {
		return errors.New("the VM has no device vhost-user-fbpp-pci, or an id is missing")
	}
	if path := findDevice(ctx, s, "virtio-balloon"); path != "" {
		get(ctx, s, path, "free-page-hint", &s.balloon)
	}
	hints := map[string]any{"path": s.device, "property": "hints"}
	if err := s.do(ctx, "qom-get", hints, &s.hints); err != nil {
		return fmt.Errorf("ask whether hints are on: %w", err) // or they would be off afterwards
	}
	var all []capability
	if err := s.do(ctx, "query-migrate-capabilities", nil, &all); err != nil {
		return fmt.Errorf("ask for capabilities: %w", err)
	}
	if err := s.do(ctx, "query-migrate-parameters", nil, &s.parameters); err != nil {
		return fmt.Errorf("ask for parameters: %w", err)
	}
	var off []capability
	for _, c := range all {
		if c.On && unfit[c.Name] {
			s.capabilities = append(s.capabilities, c)
			off = append(off, capability{Name: c.Name})
		}
	}
	if err := s.set(ctx, off); err != nil {
		return errors.Join(err, s.end(ctx))
	}
	return nil
}

// set sets capabilities.
func (s *session) set(ctx context.Context, all []capability) error {
	if len(all) == 0 {
		return nil
	}
	args := map[string]any{"capabilities": all}
	if err := s.do(ctx, "migrate-set-capabilities", args, nil); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// end has the guest go on, and sets back what was changed.
func (s *session) end(ctx context.Context) error {
	err := s.resume(ctx)
	if err != nil {
		err = fmt.Errorf("the guest may stand still: \"cont\" in QEMU's monitor lets it go on: %w", err)
	}
	back := s.do(ctx, "migrate-set-parameters", s.parameters, nil)
	back = errors.Join(back, s.set(ctx, s.capabilities), s.setHints(ctx, s.hints))
	if back != nil {
		back = fmt.Errorf("set migration back to what it was: %w", back)
	}
	return errors.Join(err, back)
}

func (s *session) setHints(ctx context.Context, on bool) error {
	args := map[string]any{"path": s.device, "property": "hints", "value": on}
	return s.do(ctx, "qom-set", args, nil)
}

func (s *session) state(ctx context.Context) (string, error) {
	var answer struct{ Status string }
	if err := s.do(ctx, "query-status", nil, &answer); err != nil {
		return "", fmt.Errorf("ask for the VM's state: %w", err)
	}
	return answer.Status, nil
}

// resume ends a migration, if there is one, and has the guest go on that it has stopped.
func (s *session) resume(ctx context.Context) error {
	now, err := s.query(ctx)
	if err != nil {
		return err
	}
	if now.Status != "" && !now.ended() {
		if err := s.do(ctx, "migrate_cancel", nil, nil); err != nil {
			return fmt.Errorf("cancel the migration: %w", err)
		}
		if _, err := s.await(context.WithoutCancel(ctx), answerTimeout); err != nil {
			return err
		}
	}
	state, err := s.state(ctx)
	for err == nil && state == "finish-migrate" { // it ends soon after the migration has
		select {
		case <-time.After(pollInterval):
			state, err = s.state(ctx)
		case <-ctx.Done():
			return fmt.Errorf("wait for the migration's end: %w", context.Cause(ctx))
		}
	}
	if err != nil || state == "running" {
		return err
	}
	if state != "postmigrate" {
		return fmt.Errorf("the VM is %s", state)
	}
	return s.do(ctx, "cont", nil, nil)
}

// migrate makes one migration, after which the guest runs again.
func (s *session) migrate(
	ctx context.Context, hints bool, gbit float64,
) (one Migration, err error) {
	const noLimit = 1 << 40 // more than any host can send
	p := parameters{Bandwidth: noLimit}
	if gbit > 0 {
		p.Bandwidth = uint64(gbit * 1e9 / 8)
	}
	if err := s.do(ctx, "migrate-set-parameters", p, nil); err != nil {
		return one, fmt.Errorf("set parameters: %w", err)
	}
	if err := s.setHints(ctx, hints); err != nil {
		return one, err
	}
	if hints {
		if err := s.plan.Ready(ctx); err != nil {
			return one, err
		}
	}
	to, err := openSink()
	if err != nil {
		return one, err
	}
	defer to.Close()
	if err := s.do(ctx, "migrate", map[string]any{"uri": to.uri()}, nil); err != nil {
		return one, err
	}
	f, err := s.await(ctx, s.plan.Limit)
	slow := errors.Is(err, errSlow)
	if err != nil && !slow {
		return one, err
	}
	if err := s.resume(ctx); err != nil {
		return one, err
	}
	one = f.migration()
	if slow {
		one.Result = "too-slow"
	}
	return one, nil
}

// pollInterval is the time between two questions to QEMU.
const pollInterval = 50 * time.Millisecond

// errSlow is that a migration has not ended within the limit.
var errSlow = errors.New("the migration does not end")

// await waits until a migration has ended, and returns its figures. After limit the error is
// errSlow, with the figures so far.
func (s *session) await(ctx context.Context, limit time.Duration) (f figures, err error) {
	for begun := time.Now(); ; {
		if f, err = s.query(ctx); err != nil || f.ended() {
			return f, err
		}
		if time.Since(begun) > limit {
			return f, errSlow
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return f, fmt.Errorf("wait for the migration: %w", context.Cause(ctx))
		}
	}
}
