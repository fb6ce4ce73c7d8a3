// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// Words of a window of version 2 (docs/window.md).
const (
	windowFeatures    = 0x010
	sourceName        = 0x0c0
	entryCount        = 0x0d0
	outcomeNumber     = 0x100
	outcomeGeneration = 0x108
	outcomeMigration  = 0x110 // and outcome_hints in the upper half
	outcomeSkipped    = 0x118
	outcomeMoved      = 0x120
	outcomeTotal      = 0x128
	entrySlots        = 0x200
	entrySize         = 32

	featureOutcome = 1
)

// How a migration ended, in the window's numbers.
const (
	migrationCompleted = 1
	migrationFailed    = 2
	migrationCancelled = 3
)

// Statuses of hints, in the window's numbers.
const (
	hintsOK         = 0
	hintsDisabled   = 1
	hintsNotRunning = 3
	hintsTimeout    = 9
	hintsCancelled  = 13
)

// secondWindow makes a correct window of version 2.
func secondWindow() (*fakeWindow, error) {
	w, err := honestWindow()
	if err != nil {
		return nil, err
	}
	w.put(windowMagic, magicWord+1<<32)
	w.put(windowFeatures, featureOutcome)
	w.payload[0] = 2
	w.payload = binary.LittleEndian.AppendUint64(w.payload, featureOutcome)
	return w, nil
}

// second makes windows of version 2 that change has altered.
func second(change func(*fakeWindow)) func() (*fakeWindow, error) {
	return func() (*fakeWindow, error) {
		w, err := secondWindow()
		if err == nil {
			change(w)
		}
		return w, err
	}
}

// entry writes entry i of an answer: a named phase (kind 0) or detail (kind 1).
func (w *fakeWindow) entry(i int, name string, value uint64, kind uint64) {
	at := entrySlots + i*entrySize
	copy(w.mem[at:at+16], append([]byte(name), make([]byte, 16)...))
	w.put(at+16, value)
	w.put(at+24, kind)
}

// outcome is how a migration ended, as QEMU writes it into the window.
type outcome struct {
	number, generation, migration, hints uint64
}

func (w *fakeWindow) outcome() outcome {
	how := w.get(outcomeMigration)
	return outcome{w.get(outcomeNumber), w.get(outcomeGeneration), how & 0xffffffff, how >> 32}
}

// QEMU shows the named phases and details of a window of version 2, and leaves out
// those whose names are malformed. It refuses a window whose version or features were not
// negotiated.
func TestSecondVersionOfTheWindow(t *testing.T) {
	l := startLiar(t)
	l.offer(second(func(w *fakeWindow) { w.put(windowFeatures, 0) }))
	m := boot(t, setup{socket: l.socket, device: map[string]string{"hint-timeout": "2000"}})
	for _, tc := range []struct {
		name   string
		change func(*fakeWindow)
	}{
		{"features in the header that were not agreed", func(w *fakeWindow) { w.put(windowFeatures, 3) }},
		{"features that QEMU did not name", func(w *fakeWindow) { w.payload[16] = 3 }},
		{"a header of version 1", func(w *fakeWindow) { w.put(windowMagic, magicWord) }},
		{"a reply of version 1 with a header of version 2", func(w *fakeWindow) {
			w.payload[0] = 1
			w.payload = w.payload[:16]
		}},
		{"a reply of version 1 that is long", func(w *fakeWindow) { w.payload[0] = 1 }},
		{"a reply without features", func(w *fakeWindow) { w.payload = w.payload[:16] }},
		{"a reply of version 3", func(w *fakeWindow) { w.payload[0] = 3 }},
		{"a reply with flags", func(w *fakeWindow) { w.payload[4] = 1 }},
	} {
		m.run(tc.name, func() {
			l.offer(second(tc.change))
			m.awaitLeft(l)
		})
	}
	l.offer(secondWindow)
	m.startAgentUnder(l)
	m.run("names", func() { m.showNames(l) })
	m.run("no source and no entries", func() {
		l.say(func(w *fakeWindow, asked uint64) {
			clear(w.mem[sourceName : sourceName+16])
			w.put(entryCount, 0)
			w.answer(asked, answerOK, gpaRange{0, 4096})
		})
		if h := m.hintFigures(); h.Status != "ok" || h.Source != "" || len(h.Phases)+len(h.Details) != 0 {
			m.t.Errorf("got %+v", h)
		}
	})
}

func (m *machine) showNames(l *liar) {
	l.say(func(w *fakeWindow, asked uint64) {
		copy(w.mem[sourceName:], "exactly-16-bytes")
		w.entry(0, "first", 7, 0)
		w.entry(1, "Upper", 1, 0)
		w.entry(2, "with space", 1, 0)
		w.entry(3, "", 1, 0)
		w.entry(4, "line\nbreak", 1, 1)
		w.entry(5, "\xff", 1, 1)
		w.entry(6, "a-kind-of-2", 1, 2)
		w.entry(7, "detail-bytes", 1<<62, 1)
		w.entry(8, "second", ^uint64(0)>>1, 0)
		for i := 9; i < 16; i++ {
			w.entry(i, "last", uint64(i), 1)
		}
		w.put(entryCount, 1<<32-1) // the window has 16 entries
		w.answer(asked, answerOK, gpaRange{0, 4096})
	})
	h := m.hintFigures()
	if h.Status != "ok" || h.Source != "exactly-16-bytes" {
		m.t.Errorf("hints ended with %q, by %q", h.Status, h.Source)
	}
	phases := []vm.HintPhase{{Name: "first", Time: 7}, {Name: "second", Time: 1<<63 - 1}}
	if !slices.Equal(h.Phases, phases) {
		m.t.Errorf("the phases are %v, want %v", h.Phases, phases)
	}
	if len(h.Details) != 8 || h.Details[0] != (vm.HintDetail{Name: "detail-bytes", Value: 1 << 62}) ||
		h.Details[7] != (vm.HintDetail{Name: "last", Value: 15}) {
		m.t.Errorf("the details are %v", h.Details)
	}
}

// QEMU tells the backend how each migration ended, also if it never asked for hints.
func TestOutcomeIsTold(t *testing.T) {
	l := startLiar(t)
	windows := make(chan *fakeWindow, 100)
	l.offer(second(func(w *fakeWindow) { windows <- w }))
	m := boot(t, setup{socket: l.socket, device: map[string]string{"hint-timeout": "2000"}})
	m.startAgentUnder(l)
	w := <-windows
	for len(windows) > 0 {
		w = <-windows // the last one counts: the guest may have been booted again
	}
	// await waits for the next outcome, or until the test's time is up.
	told := uint64(0)
	await := func(want outcome) {
		t.Helper()
		told++
		want.number = told
		for w.get(outcomeNumber) != told && m.ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if got := w.outcome(); got != want {
			t.Errorf("QEMU told %+v, want %+v", got, want)
		}
	}
	const page = 4096
	l.say(func(w *fakeWindow, asked uint64) { w.answer(asked, answerOK, gpaRange{0, page}) })
	asked := func() uint64 { return w.get(askGeneration) }

	m.hints() // cancels the migration afterwards
	await(outcome{generation: asked(), migration: migrationCancelled, hints: hintsOK})
	if got := w.get(outcomeSkipped); got != page {
		t.Errorf("%d bytes were skipped, want %d", got, page)
	}
	m.setDevice("hints", false)
	m.hints()
	await(outcome{migration: migrationCancelled, hints: hintsDisabled})
	if got := w.get(outcomeSkipped); got != 0 {
		t.Errorf("%d bytes were skipped of a migration that did not ask", got)
	}
	m.setDevice("hints", true)

	// No QEMU listens there, so the migration fails before it asks for hints.
	_ = m.vm.Execute(m.ctx, "migrate", map[string]any{"uri": "unix:" + l.socket + ".nobody"}, nil)
	await(outcome{migration: migrationFailed, hints: hintsCancelled})

	l.say(func(*fakeWindow, uint64) {})
	m.hints()
	await(outcome{generation: asked(), migration: migrationCancelled, hints: hintsTimeout})

	m.execute("stop")
	m.hints()
	await(outcome{migration: migrationCancelled, hints: hintsNotRunning})
	m.execute("cont")

	m.run("a full ask does not hold up QEMU", func() {
		jam(t, w.fds[1])
		m.setDevice("hints", false)
		m.hints()
		await(outcome{migration: migrationCancelled, hints: hintsDisabled})
		m.setDevice("hints", true)
		if status, err := m.vm.Status(m.ctx); err != nil || status != "running" {
			m.t.Fatalf("QEMU is %q, %v", status, err)
		}
	})

	l.say(func(w *fakeWindow, asked uint64) { w.answer(asked, answerOK, gpaRange{0, page}) })
	m.setup.socket, m.config.Backend = "", ""
	dst, backend := m.startMigration(0)
	if _, err := m.vm.WaitMigration(m.ctx, nil); err != nil {
		t.Fatal(err)
	}
	await(outcome{generation: asked(), migration: migrationCompleted, hints: hintsOK})
	total, moved := int64(w.get(outcomeTotal)), int64(w.get(outcomeMoved))
	if said := m.vm.Messages(); !strings.Contains(said, "migration: free page hints: ") {
		t.Errorf("QEMU's log does not tell of the hints:\n%s", said)
	}
	figures := m.arrive(dst, backend)
	if total != figures.TotalTime || moved != figures.RAM.Transferred {
		t.Errorf("QEMU told %d ms and %d bytes, and says %d and %d",
			total, moved, figures.TotalTime, figures.RAM.Transferred)
	}
	m.requireSound()
}
