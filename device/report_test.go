// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func TestRecordsBecomeSortedDisjointRanges(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	e := m.expectEvent(protocol.EventReportFree)
	if e.BudgetUS != 1000 || e.BudgetEntries != driver.DefaultHoldEntries ||
		e.DeadlineMS == 0 || e.Generation == 0 {
		t.Errorf("event says %v", e)
	}
	m.post(startedMessage(e.Generation))
	// Descending, in two messages, with records that lie across buffers.
	first := []protocol.Record{protocol.MakeRecord(2048, 10), protocol.MakeRecord(1024, 10)}
	m.post(reportMessage(e.Generation, 0, 0, first...), 33, 3, 6)
	second := protocol.MakeRecord(300, 0)
	m.post(reportMessage(e.Generation, protocol.FlagLast, 3, second), 32, 1, 2, 3)

	status, ranges := m.answer()
	want := []freeset.Range{{GPA: 300 << 12, Length: 1 << 12}, {GPA: 1024 << 12, Length: 2048 << 12}}
	if status != protocol.AnswerOK || !slices.Equal(ranges, want) {
		t.Fatalf("answer is %v, %v; want ok, %v", status, ranges, want)
	}
	last := m.dev.Status().Last
	if last.Records != 3 || last.FreeBytes != 2049<<12 || last.Source != "driver" ||
		last.Phase("walk") != 11*time.Microsecond || last.Detail("holds") != 2 {
		t.Errorf("status tells %+v", last)
	}
	if walk := m.window.Entries()["walk"]; walk != 11 {
		t.Errorf("the window tells a walk of %d µs, want the guest's 11", walk)
	}
	m.mustExchange()
}

func TestAnEmptyReportIsAnAnswer(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	m.post(last(m.expectEvent(protocol.EventReportFree).Generation))
	m.expect(protocol.AnswerOK)
}

func TestBlocksMayRepeatOnlyAfterResumed(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	e := m.expectEvent(protocol.EventReportFree)
	m.post(reportMessage(e.Generation, 0, 0, protocol.MakeRecord(512, 0)))
	m.post(reportMessage(e.Generation, protocol.FlagResumed, 0, protocol.MakeRecord(512, 9)))
	m.post(reportMessage(e.Generation, protocol.FlagLast|protocol.FlagTruncated, 2))
	a := m.window.Answer(patience)
	if a.Status != protocol.AnswerOK || !slices.Equal(a.Ranges, block512()) {
		t.Fatalf("answer is %v, %v", a, a.Ranges)
	}
	if !a.Truncated {
		t.Fatal("the answer is not TRUNCATED")
	}
}

// A guest may have memory that is not shared with the device, and its driver does
// not know which. The driver reports it, so the device has to leave it out.
func TestMemoryThatIsNotSharedIsLeftOut(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	m.post(last(m.expectEvent(protocol.EventReportFree).Generation,
		protocol.MakeRecord(0, 0), protocol.MakeRecord(512, 9), protocol.MakeRecord(1<<30, 3)))
	status, ranges := m.answer()
	if status != protocol.AnswerOK || !slices.Equal(ranges, block512()) {
		t.Fatalf("answer is %v, %v; want the block that is shared", status, ranges)
	}
	if n := m.dev.Status().Last.Detail("outside-frames"); n != 9 {
		t.Errorf("%d frames were outside, want 9", n)
	}
}

// Each case is a driver that breaks a rule; the request must end without hints, and
// the next one must work.
func TestBadReportsAreDiscardedWhole(t *testing.T) {
	const bad, refused = protocol.AnswerBadReport, protocol.AnswerRefused
	ok := protocol.MakeRecord(512, 9)
	withStatus := func(g uint64, status protocol.Status) []byte {
		p := last(g)
		binary.LittleEndian.PutUint32(p[16:], uint32(status))
		return p
	}
	for _, tc := range []struct {
		name string
		send func(m *machine, g uint64)
		want protocol.AnswerStatus
	}{
		{"overlapping blocks",
			func(m *machine, g uint64) { m.post(last(g, ok, protocol.MakeRecord(600, 0))) }, bad},
		{"the same block twice", func(m *machine, g uint64) { m.post(last(g, ok, ok)) }, bad},
		{"an unaligned block",
			func(m *machine, g uint64) { m.post(last(g, ok, protocol.MakeRecord(513+1024, 9))) }, bad},
		{"a block of order 63",
			func(m *machine, g uint64) { m.post(last(g, ok, protocol.MakeRecord(0, 63))) }, bad},
		{"a reserved class", func(m *machine, g uint64) { m.post(last(g, ok|1<<6)) }, bad},
		{"a trailer that counts wrong",
			func(m *machine, g uint64) { m.post(reportMessage(g, protocol.FlagLast, 2, ok)) }, bad},
		{"a message cut short", func(m *machine, g uint64) { m.post(last(g, ok)[:70]) }, bad},
		{"a message that is too long",
			func(m *machine, g uint64) { m.post(append(last(g, ok), 0)) }, bad},
		{"half a header", func(m *machine, g uint64) { m.post(last(g)[:16]) }, bad},
		{"a type that is unknown",
			func(m *machine, g uint64) { m.post(append([]byte{9}, last(g)[1:]...)) }, bad},
		{"pages that change their size", func(m *machine, g uint64) {
			m.post(reportMessage(g, 0, 0, ok))
			p := last(g)
			p[20] = 16
			m.post(p)
		}, bad},
		{"a message with a writable part", func(m *machine, g uint64) {
			m.guest.Write(m.scratch, last(g, ok))
			m.postBuffers(
				vhosttest.Buffer{Addr: m.scratch, Len: uint32(len(last(g, ok)))},
				vhosttest.Buffer{Addr: m.scratch + 4096, Len: 8, Write: true})
		}, bad},
		{"an endless report", func(m *machine, g uint64) {
			p := reportMessage(g, protocol.FlagResumed, 0, slices.Repeat([]protocol.Record{ok}, 1000)...)
			for range 9 { // the guest has 4096 pages
				m.post(p)
			}
		}, bad},
		{"a status that says failed",
			func(m *machine, g uint64) { m.post(withStatus(g, protocol.StatusFailed)) }, refused},
		{"a status that is unknown", func(m *machine, g uint64) { m.post(withStatus(g, 77)) }, bad},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := mustBoot(t, device.Options{})
			m.hello(protocol.StatusOK, 0)
			m.request(patience)
			tc.send(m, m.expectEvent(protocol.EventReportFree).Generation)
			m.expect(tc.want)
			if m.dev.Status().Last.Why == "" {
				t.Error("the status does not say why")
			}
			if tc.want == protocol.AnswerBadReport {
				m.expectEvent(protocol.EventCancel)
			}
			m.mustExchange()
		})
	}
}

func TestABrokenRingEndsTheRequest(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	m.expectEvent(protocol.EventReportFree)
	m.report.SetAvailIdx(m.report.AvailIdx() + 1000)
	m.must(m.report.Kick.Raise())
	m.expect(protocol.AnswerBadReport)
}

func TestATruncatedGuestMemoryIsABadReport(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, 0)
	m.request(patience)
	e := m.expectEvent(protocol.EventReportFree)
	b := m.guest.Blocks[1]
	addr := b.Addr + b.Size() - 4096
	p := last(e.Generation, protocol.MakeRecord(512, 9))
	m.guest.Write(addr, p)
	m.must(unix.Ftruncate(b.FD, int64(b.Size())-4096))
	m.postBuffers(vhosttest.Buffer{Addr: addr, Len: uint32(len(p))})
	m.expect(protocol.AnswerBadReport)
}

func FuzzMessage(f *testing.F) {
	f.Add(last(0, protocol.MakeRecord(512, 9)), true)
	f.Add(helloMessage(protocol.StatusOK, 0), false)
	f.Add(startedMessage(0), true)
	f.Add(reportMessage(0, protocol.FlagResumed, 0, protocol.MakeRecord(1, 0)), true)
	f.Fuzz(func(t *testing.T, p []byte, current bool) {
		if len(p) == 0 || len(p) > scratchSize {
			return
		}
		m := mustBoot(t, device.Options{})
		m.hello(protocol.StatusOK, 0)
		m.request(patience)
		e := m.expectEvent(protocol.EventReportFree)
		if current && len(p) >= protocol.HeaderSize {
			binary.LittleEndian.PutUint64(p[8:], e.Generation)
		}
		m.post(p, 40)
		m.cancel()
		status, ranges := m.answer()
		if status != protocol.AnswerOK && len(ranges) != 0 {
			t.Fatalf("%d ranges beside status %v", len(ranges), status)
		}
		var end uint64
		for _, r := range ranges {
			if r.GPA < 1<<20 || r.GPA+r.Length > m.guest.End() || r.Length == 0 || r.GPA <= end && end != 0 {
				t.Fatalf("range %+v after one that ended at %#x", r, end)
			}
			end = r.GPA + r.Length
		}
	})
}
