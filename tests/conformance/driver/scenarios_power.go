// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// In these scenarios the guest or its connection is stopped, paused or restarted.

// leftInRing does not read messages for a while. The guest has to run meanwhile: the
// driver must not wait with a lock held.
func leftInRing(s *session) error {
	s.setPace(paceIgnore, nil)
	r, err := s.ask(question{deadline: s.c.Patience + s.c.Hold})
	if err != nil {
		return err
	}
	s.pause() // the walk itself may hold locks
	began := time.Now()
	active, known := s.guestActive(s.c.Hold)
	select {
	case <-time.After(time.Until(began.Add(s.c.Hold))):
	case <-s.ctx.Done():
	}
	s.setPace(paceAtOnce, nil)
	if err := s.answered(r); err != nil {
		return err
	}
	s.locked(func() {
		hold := time.Duration(r.trailer.HoldMaxUS) * time.Microsecond
		switch {
		case hold >= s.c.Hold/2:
			s.judge.broke(ruleLocks, "the device left the messages in the ring for %v,"+
				" and by the trailer a lock was held for %v", s.c.Hold, hold)
		case known && !active:
			s.judge.broke(ruleLocks, "the device left the messages in the ring for %v"+
				" and interrupted the driver, and no byte of the guest's memory changed", s.c.Hold)
		default:
			s.judge.saw(ruleLocks)
		}
	})
	return nil
}

func paused(s *session) error {
	if s.c.Control.Pause == nil || s.c.Control.Resume == nil {
		return notPossible("nobody pauses the guest: see --pause and --resume")
	}
	for _, open := range []bool{false, true} {
		refuses := false
		s.locked(func() { refuses = s.refuses() })
		if open && !refuses {
			s.setPace(paceKeep, nil)
			if _, err := s.begin(question{}); err != nil {
				return err
			}
		}
		if err := s.control(s.c.Control.Pause); err != nil {
			return fmt.Errorf("pause the guest: %w", err)
		}
		s.pause()
		if err := s.control(s.c.Control.Resume); err != nil {
			return fmt.Errorf("resume the guest: %w", err)
		}
		if err := s.running(s.c.Patience); err != nil {
			return errStopped
		}
		s.setPace(paceAtOnce, nil)
	}
	return nil
}

func restarted(s *session) error {
	if s.c.Control.Restart == nil {
		return notPossible("nobody restarts the driver: see --restart-driver")
	}
	hellos, starts := 0, 0
	s.locked(func() { s.restarts, hellos, starts = true, s.judge.hellos, s.starts })
	if err := s.control(s.c.Control.Restart); err != nil {
		return fmt.Errorf("restart the driver: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Wait)
	defer cancel()
	if err := s.await(ctx, func() bool { return s.startedSince(starts) }); err != nil {
		s.locked(func() { s.restarts = false })
		return notPossible(fmt.Sprintf("nobody restarted the driver in %v", s.c.Wait))
	}
	return s.helloAfter(hellos, ruleAgain)
}

// startedSince says whether both queues run, and eventq was started again since
// there were so many starts. d.mu is held.
func (s *session) startedSince(starts int) bool {
	return s.starts > starts && s.eventq != nil && s.reportq != nil
}

// reconnected plays a device whose process is restarted.
func reconnected(s *session) error {
	starts := 0
	s.locked(func() {
		starts = s.starts
		if s.backend != nil {
			s.backend.Close()
		}
	})
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Patience)
	defer cancel()
	if err := s.await(ctx, func() bool { return s.startedSince(starts) }); err != nil {
		return notPossible(fmt.Sprintf("the frontend did not connect again in %v:"+
			" QEMU does where its chardev has reconnect-ms", s.c.Patience))
	}
	s.setConfig(func(c *protocol.Config) { c.BudgetUS++ })
	return s.wantHello(ruleWanted)
}

// control calls a function of [Control] with a limit on its time.
func (s *session) control(what func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.c.Wait)
	defer cancel()
	return what(ctx)
}
