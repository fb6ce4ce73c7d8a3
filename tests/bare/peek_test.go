// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// looked is the memory that the tests peek at and report as free. Only the tests
// write there, and the program of writeROM can reach it.
var looked = freeset.Range{GPA: 0x20000, Length: 0x40000}

// peeks returns a machine without a driver, the destination of its migration, which
// has no backend, and the machine's backend. change, unless nil, alters both VMs.
func peeks(t testing.TB, features uint64, change func(*vm.Config)) (*machine, *machine, *peeker) {
	t.Helper()
	p := startPeeker(t, features)
	c := config(p.socket)
	c.Device["hint-timeout"] = "60000"
	if change != nil {
		change(&c)
	}
	m := start(t, c)
	m.fill(looked.GPA, looked.Length, 0x5a)
	m.awaitConnectedTo(p)
	if features&protocol.WindowFeaturePeek != 0 {
		m.awaitSees(p, looked.GPA)
	}
	c.Backend = p.socket + ".nobody"
	return m, startIncoming(t, c), p
}

// begin begins a migration without a bandwidth limit.
func (m *machine) begin(dst *machine) {
	m.t.Helper()
	if err := m.StartMigration(m.ctx, dst.VM, 1<<40); err != nil {
		m.t.Fatal(err)
	}
}

// end waits until a migration has completed, and returns its figures.
func (m *machine) end(dst *machine) *vm.Migration {
	m.t.Helper()
	figures, err := m.WaitMigration(m.ctx, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if figures.Status != "completed" {
		m.t.Fatalf("the migration %s: %s\n%s", figures.Status, figures.ErrorDesc, m.Messages())
	}
	if err := dst.Arrive(dst.ctx); err != nil {
		m.t.Fatal(err)
	}
	return figures
}

// requireSent checks that these pages arrived although they were reported as free,
// and that some other pages were skipped.
func (m *machine) requireSent(dst *machine, pages ...uint64) {
	m.t.Helper()
	here, there := m.save(looked), dst.save(looked)
	skipped := 0
	for at := uint64(0); at < looked.Length; at += pageSize {
		source, got := here[at:][:pageSize], there[at:][:pageSize]
		switch same := bytes.Equal(source, got); {
		case !same && slices.Contains(pages, looked.GPA+at):
			m.t.Errorf("page %#x was written and is lost", looked.GPA+at)
		case !same:
			skipped++
		}
	}
	if skipped == 0 {
		m.t.Error("no page was skipped: the test could not notice a lost page")
	}
}

// save returns a piece of the machine's memory.
func (m *machine) save(r freeset.Range) []byte {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "memory")
	m.execute("pmemsave", map[string]any{"val": r.GPA, "size": r.Length, "filename": file})
	content, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	return content
}

func requirePages(t testing.TB, got []uint64, want ...uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the peek says that %#x were written, want %#x", got, want)
	}
}

// A peek tells exactly the pages that were written since the question, in the order
// of its ranges. It does not reset the log: the next peek tells them again, and they
// are sent although the answer calls them free.
func TestPeekTellsWhatWasWritten(t *testing.T) {
	for _, tc := range []struct {
		name string
		on   func(c *vm.Config)
	}{
		{"no accelerator", nil},
		{"TCG", func(c *vm.Config) { c.Accel = vm.TCG }},
		{"KVM", func(c *vm.Config) { c.Accel, c.CPU = vm.KVM, kvmCPU }},
		{"KVM with a dirty ring", func(c *vm.Config) {
			c.Accel, c.CPU, c.AccelWith = vm.KVM, kvmCPU, "dirty-ring-size=1024"
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, dst, p := peeks(t, protocol.WindowFeaturePeek, func(c *vm.Config) {
				if tc.on != nil {
					c.Firmware = writeROM(t)
					tc.on(c)
				}
				if c.Accel == vm.KVM {
					lab.NeedKVM(t, c.AccelWith != "")
				}
			})
			m.touch(0x21000) // not to be told: it is before the question
			m.begin(dst)
			w := m.awaitAsked(p)
			requirePages(t, m.written(w, looked))
			m.touch(0x27000)
			m.touch(0x20000)
			requirePages(t, m.written(w, looked), 0x20000, 0x27000)
			m.touch(0x5f000)
			m.touch(0x30000)
			requirePages(t, m.written(w,
				freeset.Range{GPA: 0x20000, Length: 0x8000},
				freeset.Range{GPA: 0x30000, Length: 0x1000},
				freeset.Range{GPA: 0x50000, Length: 0x10000},
			), 0x20000, 0x27000, 0x30000, 0x5f000)
			m.touch(0x48000) // not followed by a peek
			w.publish(protocol.AnswerOK, looked)
			if figures := m.end(dst); figures.HintStatus() != "ok" || figures.Hints.Skipped == 0 {
				t.Errorf("the hints ended with %q: %+v", figures.HintStatus(), figures.Hints)
			}
			m.requireSent(dst, 0x20000, 0x27000, 0x30000, 0x48000, 0x5f000)
		})
	}
}

// kvmCPU leaves out a property of the processor that not every KVM can set.
const kvmCPU = "host,-arch-capabilities"

// QEMU answers a malformed peek with status 1. The next peek is answered, and the
// migration completes.
func TestHostilePeeks(t *testing.T) {
	page := func(gpa uint64) freeset.Range { return freeset.Range{GPA: gpa, Length: 0x1000} }
	const slots = (smallWindow - protocol.WindowHeaderSize) / protocol.WindowRangeSize
	full := make([]freeset.Range, slots)
	for i := range full {
		full[i] = page(1<<20 + uint64(i)*0x2000)
	}
	for _, tc := range []struct {
		name   string
		ranges []freeset.Range
		count  uint64 // 0: the number of ranges
	}{
		{name: "more ranges than slots", ranges: full, count: slots + 1},
		{name: "ranges without end", count: 1 << 63},
		{name: "ranges whose length overflows", count: 1<<60 + 1, ranges: full[:1]},
		{name: "all slots, and so no room", ranges: full},
		{name: "more pages than there is room for", ranges: []freeset.Range{{GPA: 0, Length: 1 << 40}}},
		{name: "pages whose number overflows", ranges: []freeset.Range{
			{GPA: 0, Length: 1<<64 - 0x1000}, {GPA: 1 << 63, Length: 0x1000},
		}},
		{name: "an empty range", ranges: []freeset.Range{{GPA: 0x20000}}},
		{name: "a page and an empty range", ranges: []freeset.Range{page(0x20000), {GPA: 0x30000}}},
		{name: "half a page", ranges: []freeset.Range{{GPA: 0x20000, Length: 0x800}}},
		{name: "halves of pages", ranges: []freeset.Range{
			{GPA: 0x20000, Length: 0x800}, {GPA: 0x30000, Length: 0x800},
		}},
		{name: "across pages", ranges: []freeset.Range{page(0x20800)}},
		{name: "not sorted", ranges: []freeset.Range{page(0x30000), page(0x20000)}},
		{name: "twice", ranges: []freeset.Range{page(0x20000), page(0x20000)}},
		{name: "adjacent", ranges: []freeset.Range{page(0x20000), page(0x21000)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
			m.begin(dst)
			w := m.awaitAsked(p)
			m.touch(0x27000)
			count := tc.count
			if count == 0 {
				count = uint64(len(tc.ranges))
			}
			w.peeks++
			w.peek(w.peeks, w.seen, count, tc.ranges...)
			m.await("the peek is answered", func() bool { return w.answered(w.peeks) })
			if status := w.get32(protocol.WindowPeekStatusOffset); status != 1 {
				t.Errorf("the peek has status %d, want 1", status)
			}
			m.requireAnswers(dst, w)
		})
	}
}

// What is no RAM counts as written. A backend may take it for RAM: with huge pages vhost rounds
// what it tells of memory.
func TestPeekAtWhatIsNoRAM(t *testing.T) {
	const end = 64 << 20
	m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
	m.begin(dst)
	w := m.awaitAsked(p)
	m.touch(0x27000)
	requirePages(t, m.written(w,
		freeset.Range{GPA: 0x26000, Length: 0x3000},
		freeset.Range{GPA: end - 0x2000, Length: 0x3000},
		freeset.Range{GPA: 0xd0000000, Length: 0x2000},
		freeset.Range{GPA: 1<<64 - 0x2000, Length: 0x1000},
	), 0x27000, end, 0xd0000000, 0xd0001000, 1<<64-0x2000)
	m.requireAnswers(dst, w)
}

// requireAnswers checks that QEMU answers a correct peek and uses the answer after
// it. Page 0x27000 has to be the only page that was written.
func (m *machine) requireAnswers(dst *machine, w *rawWindow) {
	m.t.Helper()
	requirePages(m.t, m.written(w, looked), 0x27000)
	w.publish(protocol.AnswerOK, looked)
	if figures := m.end(dst); figures.HintStatus() != "ok" {
		m.t.Errorf("the hints ended with %q", figures.HintStatus())
	}
	m.requireSent(dst, 0x27000)
}

// QEMU does not answer a peek of another question, or with a number that is not new.
func TestInvalidPeeksAreNotAnswered(t *testing.T) {
	for _, tc := range []struct {
		name string
		peek func(w *rawWindow)
	}{
		{"of the request before", func(w *rawWindow) { w.peeks++; w.peek(w.peeks, w.seen-1, 1, looked) }},
		{"of the next request", func(w *rawWindow) { w.peeks++; w.peek(w.peeks, w.seen+1, 1, looked) }},
		{"number 0", func(w *rawWindow) { w.peek(0, w.seen, 1, looked) }},
		{"an old number", func(w *rawWindow) { w.peek(1, w.seen, 1, looked) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
			m.begin(dst)
			w := m.awaitAsked(p)
			m.written(w, looked)
			m.written(w, looked)
			m.touch(0x27000)
			tc.peek(w)
			time.Sleep(aWhile)
			if w.get64(protocol.WindowPeekAnsweredOffset) != 2 {
				t.Errorf("QEMU answers a void peek")
			}
			m.requireAnswers(dst, w)
		})
	}
}

// A peek together with the answer, or after it, does not disturb the migration. After
// the migration QEMU does not answer it.
func TestPeekAfterTheAnswer(t *testing.T) {
	m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
	m.begin(dst)
	w := m.awaitAsked(p)
	m.touch(0x27000)
	w.publish(protocol.AnswerOK, looked)
	w.peeks++
	w.peek(w.peeks, w.seen, 1, looked)
	m.end(dst)
	m.requireSent(dst, 0x27000)
	w.peeks++
	w.peek(w.peeks, w.seen, 1, looked)
	time.Sleep(aWhile)
	if w.answered(w.peeks) {
		t.Error("QEMU answers a peek after the migration")
	}
	m.requireSaid("free page hints: 0 MiB in 1 ranges skipped", "migration: completed after ")
}

// Repeated peeks do not extend the time that a backend has to answer.
func TestBackendThatPeeksForEver(t *testing.T) {
	for _, tc := range []struct {
		name   string
		cancel bool
		status string
	}{
		{"until the deadline", false, "timeout"},
		{"until it is cancelled", true, "cancelled"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
			if !tc.cancel {
				if err := m.SetDevice(m.ctx, "hint-timeout", 300); err != nil {
					t.Fatal(err)
				}
			}
			m.begin(dst)
			w := m.awaitAsked(p)
			m.touch(0x27000)
			for n := 0; w.get64(protocol.WindowCancelGenerationOffset) < w.seen; n++ {
				if w.answered(w.peeks) || w.peeks == 0 {
					w.peeks++
					w.peek(w.peeks, w.seen, 1, looked)
				}
				if n == 100 && tc.cancel {
					go m.Execute(m.ctx, "migrate_cancel", nil, nil)
				}
				if m.ctx.Err() != nil {
					t.Fatal("QEMU never gives up")
				}
				time.Sleep(time.Millisecond)
			}
			figures, err := m.WaitMigration(m.ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if figures.HintStatus() != tc.status {
				t.Errorf("the hints ended with %q, want %q", figures.HintStatus(), tc.status)
			}
			m.requireRunsOr(tc.cancel, dst)
		})
	}
}

// requireRunsOr checks that the guest runs: here if the migration was cancelled, and
// else at the destination, with the same memory.
func (m *machine) requireRunsOr(cancelled bool, dst *machine) {
	m.t.Helper()
	if cancelled {
		m.requireRuns()
		return
	}
	if err := dst.Arrive(dst.ctx); err != nil {
		m.t.Fatal(err)
	}
	dst.requireRuns()
	if !bytes.Equal(m.save(looked), dst.save(looked)) {
		m.t.Error("the destination has other memory than the source")
	}
}

// QEMU asks about a paused guest, and flags the question so. The guest may continue
// at any time: the pages that it writes then are told by a peek, and sent.
func TestPausedGuestIsAskedAbout(t *testing.T) {
	for _, tc := range []struct {
		name   string
		driver bool
	}{{"without a driver", false}, {"with a driver", true}} {
		t.Run(tc.name, func(t *testing.T) {
			m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
			if tc.driver {
				m.startDriver(low)
			}
			m.execute("stop", nil)
			m.begin(dst)
			w := m.awaitAsked(p)
			if flags := w.get32(protocol.WindowAskFlagsOffset); flags != protocol.WindowAskPaused {
				t.Errorf("the question has flags %#x, want %#x", flags, protocol.WindowAskPaused)
			}
			requirePages(t, m.written(w, looked))
			m.execute("cont", nil)
			m.touch(0x27000)
			m.requireAnswers(dst, w)
		})
	}
}

// The question about a running guest has no paused flag, also when the question
// before it had one.
func TestRunningGuestIsNotCalledPaused(t *testing.T) {
	m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
	m.execute("stop", nil)
	m.begin(dst)
	m.awaitAsked(p)
	if err := m.CancelMigration(m.ctx); err != nil {
		t.Fatal(err)
	}
	m.execute("cont", nil)
	again := startIncoming(t, dst.Config)
	m.begin(again)
	w := m.awaitAsked(p)
	if flags := w.get32(protocol.WindowAskFlagsOffset); flags != 0 {
		t.Errorf("the question has flags %#x, want none", flags)
	}
	m.touch(0x27000)
	m.requireAnswers(again, w)
}
