// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
)

func TestAnswersOfAnotherGenerationHaveNoEffect(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	old := m.expectEvent(protocol.EventReportFree).Generation
	m.cancel()
	m.expect(protocol.AnswerCancelled)
	if e := m.expectEvent(protocol.EventCancel); e.Generation != old {
		t.Fatalf("cancel of %d, want %d", e.Generation, old)
	}

	m.request(patience)
	e := m.expectEvent(protocol.EventReportFree)
	if e.Generation == old {
		t.Fatal("the same generation was used twice")
	}
	m.post(last(old, protocol.MakeRecord(1024, 10))) // for the cancelled request
	m.post(last(0, protocol.MakeRecord(1024, 10)))
	m.post(last(e.Generation, protocol.MakeRecord(512, 9)))
	status, ranges := m.answer()
	if status != protocol.AnswerOK || !slices.Equal(ranges, block512()) {
		t.Fatalf("answer is %v, %v: a stale report got in", status, ranges)
	}
}

func TestNoAnswerInTimeEndsTheRequest(t *testing.T) {
	for name, started := range map[string]bool{"no sign of life": false, "started and stopped": true} {
		t.Run(name, func(t *testing.T) {
			m := mustBoot(t, device.Options{})
			m.hello(protocol.StatusOK, 0)
			m.request(2 * time.Second)
			e := m.expectEvent(protocol.EventReportFree)
			if started {
				m.post(startedMessage(e.Generation))
			}
			m.expect(protocol.AnswerDriverTimeout)
			m.expectEvent(protocol.EventCancel)
			m.post(last(e.Generation, protocol.MakeRecord(1024, 10))) // too late
			m.mustExchange()
		})
	}
}

func TestARequestAfterItsDeadlineIsAnsweredAtOnce(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(-time.Second)
	m.expect(protocol.AnswerDriverTimeout)
	m.mustExchange()
}

func TestANewerRequestCancelsTheOlderOne(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	old := m.expectEvent(protocol.EventReportFree)
	m.request(patience)
	if e := m.expectEvent(protocol.EventCancel); e.Generation != old.Generation {
		t.Fatalf("cancel of %d, want %d", e.Generation, old.Generation)
	}
	e := m.expectEvent(protocol.EventReportFree)
	m.post(last(e.Generation, protocol.MakeRecord(512, 9)))
	if status, ranges := m.answer(); status != protocol.AnswerOK || len(ranges) != 1 {
		t.Fatalf("answer is %v, %v", status, ranges)
	}
}

func TestASpuriousSignalIsIgnored(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.mustExchange()
	m.window.Signal()
	m.window.Signal()
	m.mustExchange()
	if n := m.dev.Status().Requests["ok"]; n != 2 {
		t.Fatalf("%d requests ended, want 2", n)
	}
}

func TestFetchingTheWindowAgainVoidsTheOldOne(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	m.expectEvent(protocol.EventReportFree)
	old := m.window
	m.fetchWindow()
	if got := old.Answer(patience).Status; got != protocol.AnswerCancelled {
		t.Errorf("the old window says %v, want cancelled", got)
	}
	m.expectEvent(protocol.EventCancel)
	m.mustExchange()
}
