// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// A backend cannot harm QEMU through the hint window. QEMU refuses malformed windows,
// and drops malformed answers as a whole. One QEMU gets all of them in turn.
func TestHostileHintWindows(t *testing.T) {
	underEachQEMU(t, func(t *testing.T, qemu string) {
		l := startLiar(t)
		l.offer(sealed(0)) // QEMU asks for a new window only after it refused one
		device := map[string]string{"hint-timeout": "2000"}
		m := boot(t, setup{socket: l.socket, qemu: qemu, device: device})
		m.refuseWindows(l)
		m.startAgentUnder(l)
		m.refuseAnswers(l)
	})
}

func (m *machine) refuseWindows(l *liar) {
	path, file := notEventfds(m.t)
	for _, tc := range []struct {
		name string
		make func() (*fakeWindow, error)
	}{
		{"an error instead of a window", func() (*fakeWindow, error) { return nil, errNoWindow }},
		{"no seals", sealed(0)},
		{"no seal against shrinking", sealed(unix.F_SEAL_GROW | unix.F_SEAL_SEAL)},
		{"no seal against growing", sealed(unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL)},
		{"seals that are not final", sealed(unix.F_SEAL_SHRINK | unix.F_SEAL_GROW)},
		{"a size that is larger than the file", saysSize(2 * windowSize)},
		{"a size that is smaller", saysSize(windowSize / 2)},
		{"a size that is no multiple of a page", saysSize(windowSize + 1)},
		{"a size of nothing", saysSize(0)},
		{"a size beyond all addresses", saysSize(1 << 63)},
		{"the largest size", saysSize(^uint64(0))},
		{"a file that is larger than a window may be", func() (*fakeWindow, error) {
			return newWindow(windowMax+1<<12, allSeals)
		}},
		{"a file with no room for ranges", func() (*fakeWindow, error) {
			return newWindow(rangeSlots, allSeals)
		}},
		{"another magic", says(windowMagic, magicWord^1)},
		{"a later version", says(windowMagic, magicWord+1<<32)},
		{"more slots than there is room for", says(windowCapacity, slots+1)},
		{"slots without end", says(windowCapacity, ^uint64(0))},
		{"a reply of a later version", altered(func(w *fakeWindow) { w.payload[0] = 2 })},
		{"a reply with flags", altered(func(w *fakeWindow) { w.payload[4] = 1 })},
		{"a reply that is short", altered(func(w *fakeWindow) { w.payload = w.payload[:12] })},
		{"a reply that is long", altered(func(w *fakeWindow) { w.payload = append(w.payload, 0) })},
		{"a reply without descriptors", altered(func(w *fakeWindow) { w.fds = nil })},
		{"a descriptor that is missing", altered(func(w *fakeWindow) { w.fds = w.fds[:2] })},
		{"a descriptor too many", altered(func(w *fakeWindow) { w.fds = append(w.fds, w.fds[2]) })},
		{"eight descriptors", altered(func(w *fakeWindow) { w.fds = slices.Repeat(w.fds[:1], 8) })},
		{"an eventfd in place of the memory", altered(func(w *fakeWindow) { w.fds[0] = w.fds[1] })},
		{"a path in place of the memory", altered(func(w *fakeWindow) { w.fds[0] = path })},
		{"a path in place of ask", altered(func(w *fakeWindow) { w.fds[1] = path })},
		{"a path in place of done", altered(func(w *fakeWindow) { w.fds[2] = path })},
		{"a file in place of ask", altered(func(w *fakeWindow) { w.fds[1] = file })},
		{"a file in place of done", altered(func(w *fakeWindow) { w.fds[2] = file })},
	} {
		m.run(tc.name, func() {
			l.offer(tc.make)
			// QEMU keeps reconnecting, and the guest keeps running.
			m.awaitLeft(l)
			if status, err := m.vm.Status(m.ctx); err != nil || status != "running" {
				m.t.Fatalf("QEMU is %q, %v", status, err)
			}
		})
	}
	l.offer(honestWindow)
}

// ramEnd is where the guest's memory ends.
const ramEnd = defaultMiB << 20

func (m *machine) refuseAnswers(l *liar) {
	// Linux does not use the first page, so it may be skipped.
	const page = 4096
	first := gpaRange{0, page}
	t := m.t // the parent of the subtests
	for _, tc := range []struct {
		name   string
		answer func(w *fakeWindow, asked uint64)
		status string
	}{
		{"no ranges", ranges(), "ok"},
		{"a page that nobody uses", ranges(first), "ok"},
		{"a page past the end of memory", ranges(gpaRange{ramEnd, page}), "bad-ranges"},
		{"a range that goes past the end", ranges(gpaRange{ramEnd - page, 2 * page}), "bad-ranges"},
		{"all addresses there are", ranges(gpaRange{0, 1<<63 + (1<<63 - page)}), "bad-ranges"},
		{"a range that wraps around", ranges(gpaRange{^uint64(page - 1), 2 * page}), "bad-ranges"},
		{"a range that ends where addresses end",
			ranges(gpaRange{^uint64(page - 1), page}), "bad-ranges"},
		{"lengths whose sum wraps around",
			ranges(gpaRange{0, 1 << 63}, gpaRange{1 << 63, 1 << 63}, first), "bad-ranges"},
		{"a range of nothing", ranges(gpaRange{page, 0}), "bad-ranges"},
		{"an address within a page", ranges(gpaRange{8, page}), "bad-ranges"},
		{"a part of a page", ranges(gpaRange{0, 8}), "bad-ranges"},
		{"ranges that overlap", ranges(gpaRange{0, 2 * page}, gpaRange{page, page}), "bad-ranges"},
		{"ranges that touch", ranges(first, gpaRange{page, page}), "bad-ranges"},
		{"the same range twice", ranges(first, first), "bad-ranges"},
		{"ranges that descend", ranges(gpaRange{16 * page, page}, first), "bad-ranges"},
		{"a good range before a bad one", ranges(first, gpaRange{ramEnd, page}), "bad-ranges"},
		{"the BIOS", ranges(gpaRange{0xffffc000, page}), "bad-ranges"},
		{"the interrupt controllers", ranges(gpaRange{0xfec00000, page}), "bad-ranges"},
		{"the configuration space of PCI", ranges(gpaRange{0xb0000000, page}), "bad-ranges"},
		{"a hole of the PCI bus", ranges(gpaRange{0xd0000000, page}), "bad-ranges"},
		{"where no bus is", ranges(gpaRange{1 << 50, page}), "bad-ranges"},
		{"more ranges than slots", count(slots + 1), "bad-ranges"},
		{"ranges whose size wraps around", count(1 << 60), "bad-ranges"},
		{"ranges without end", count(^uint64(0)), "bad-ranges"},
		{"another sum", put(rangeBytes, 1), "bad-ranges"},
		{"a status that is unknown", put(doneStatus, answerUnknown), "internal"},
		{"the largest status", put(doneStatus, 1<<32-1), "internal"},
		{"all times and flags there are", func(w *fakeWindow, asked uint64) {
			for off := doneTimes; off < 0xb8; off += 8 {
				w.put(off, ^uint64(0))
			}
			w.put(doneStatus, 0xffffffff<<32) // the status shares its word with the flags
			w.put(rangeCount, 0)
			w.put(rangeBytes, 0)
			w.done(asked)
		}, "ok"},
		{"an answer to yesterday's question", func(w *fakeWindow, asked uint64) {
			w.answer(asked-1, answerOK, first)
		}, "timeout"},
		{"an answer to next year's", func(w *fakeWindow, asked uint64) {
			w.answer(asked+1000, answerOK, first)
		}, "timeout"},
		{"a full ask that makes QEMU wait", func(w *fakeWindow, asked uint64) {
			jam(t, w.fds[1])
			w.answer(asked-1, answerOK, first) // QEMU times out, and cancels the question
		}, "timeout"},
		{"a window that is all ones", func(w *fakeWindow, asked uint64) {
			for i := range w.mem {
				w.mem[i] = 0xff
			}
			w.put(askGeneration, asked) // serve would take ones for a new question
			w.done(asked)
		}, "internal"},
	} {
		m.run(tc.name, func() {
			l.say(tc.answer)
			if status := m.hints(); status != tc.status {
				m.t.Fatalf("hints ended with %q, want %q", status, tc.status)
			}
		})
	}
	m.run("an answer that changes while it is read", func() {
		for range rounds(10, 500) {
			l.say(flicker)
			if status := m.hints(); status != "ok" && status != "bad-ranges" && status != "internal" {
				m.t.Fatalf("hints ended with %q", status)
			}
		}
	})
	m.run("a full done, and a backend that leaves", func() {
		asked := make(chan *fakeWindow, 1)
		l.say(func(w *fakeWindow, generation uint64) {
			w.answer(generation, answerOK)
			asked <- w
		})
		if status := m.hints(); status != "ok" {
			m.t.Fatalf("hints ended with %q", status)
		}
		jam(t, (<-asked).fds[2]) // QEMU does not wait for it now
		l.hangUp()
		l.say(ranges())
		for m.hints() != "ok" { // until the backend is back, or the test's time is up
		}
	})
	// After all this the guest migrates to a QEMU with an fbppd.
	l.say(ranges(gpaRange{0, 1 << 40}))
	m.setup.socket, m.config.Backend = "", ""
	figures := m.migrate()
	requireHints(m.t, figures, "bad-ranges")
	m.requireSound()
	m.awaitDriver()
	requireHints(m.t, m.migrate(), "ok")
	m.requireSound()
}

// run runs a subtest with the machine of its parent.
func (m *machine) run(name string, test func()) {
	m.t.(*testing.T).Run(name, func(t *testing.T) {
		defer m.in(t)()
		test()
	})
}

// underEachQEMU runs a test with the ordinary QEMU, and with the QEMU that has
// sanitizers if that has been built. Building it takes long; make soak does it.
func underEachQEMU(t *testing.T, test func(t *testing.T, qemu string)) {
	t.Run("as it is", func(t *testing.T) { test(t, parts.QEMU) })
	script := filepath.Join(parts.Root, "qemu-patches", "qemu.sh")
	out, err := exec.Command(script, "--sanitize", "path").Output()
	if err != nil {
		t.Log("not run with sanitizers: make qemu-build-sanitize builds a QEMU that has them")
		return
	}
	t.Run("with sanitizers", func(t *testing.T) { test(t, strings.TrimSpace(string(out))) })
}

// flicker answers, and then keeps changing the answer for 20 ms.
func flicker(w *fakeWindow, asked uint64) {
	w.answer(asked, answerOK, gpaRange{0, 4096})
	values := []uint64{1, 0, slots, slots + 1, 1 << 60, ^uint64(0)}
	for until, i := time.Now().Add(20*time.Millisecond), 0; time.Now().Before(until); i++ {
		v := values[i%len(values)]
		w.put(rangeCount, v)
		w.put(rangeBytes, v*4096)
		w.put(doneStatus, v&1*answerUnknown)
		w.put(rangeSlots+8, 4096|v<<13) // the first range: one page, or far too many
		w.put(windowCapacity, v)
	}
}

// ranges answers with ranges.
func ranges(r ...gpaRange) func(*fakeWindow, uint64) {
	return func(w *fakeWindow, asked uint64) { w.answer(asked, answerOK, r...) }
}

// count answers with one range, and says that there are n.
func count(n uint64) func(*fakeWindow, uint64) {
	return put(rangeCount, n)
}

// put answers with one range, and then changes one word of the answer.
func put(offset int, v uint64) func(*fakeWindow, uint64) {
	return func(w *fakeWindow, asked uint64) {
		w.answer(asked-1, answerOK, gpaRange{0, 4096})
		w.put(offset, v)
		w.done(asked)
	}
}

// notEventfds returns two descriptors that are no eventfds: one opened with O_PATH,
// and a memfd of 1 TiB. Both are closed with the test.
func notEventfds(t testing.TB) (path, file int) {
	t.Helper()
	path, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(path) })
	if file, err = unix.MemfdCreate("endless", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(file) })
	if err := unix.Ftruncate(file, 1<<40); err != nil {
		t.Fatal(err)
	}
	return path, file
}

// jam fills an eventfd and makes it blocking. QEMU shares the file description, so a
// write of QEMU blocks until somebody reads the eventfd.
func jam(t testing.TB, eventfd int) {
	var count [8]byte
	full := binary.LittleEndian.AppendUint64(nil, ^uint64(1))
	_ = unix.SetNonblock(eventfd, true)
	_, _ = unix.Read(eventfd, count[:]) // there may be nothing in it
	if _, err := unix.Write(eventfd, full); err != nil {
		t.Errorf("fill an eventfd: %v", err)
	}
	if err := unix.SetNonblock(eventfd, false); err != nil {
		t.Errorf("have an eventfd block: %v", err)
	}
}

// sealed makes windows with these seals only.
func sealed(seals int) func() (*fakeWindow, error) {
	return func() (*fakeWindow, error) { return newWindow(windowSize, seals) }
}

// saysSize makes windows whose reply gives another size, in bytes.
func saysSize(size uint64) func() (*fakeWindow, error) {
	return altered(func(w *fakeWindow) { binary.LittleEndian.PutUint64(w.payload[8:], size) })
}

// says makes windows with another word in the header.
func says(offset int, v uint64) func() (*fakeWindow, error) {
	return altered(func(w *fakeWindow) { w.put(offset, v) })
}

func altered(change func(*fakeWindow)) func() (*fakeWindow, error) {
	return func() (*fakeWindow, error) {
		w, err := honestWindow()
		if err == nil {
			change(w)
		}
		return w, err
	}
}

// awaitLeft waits until QEMU has disconnected because of the window that is offered
// now. It waits for two disconnects: the first may be due to the previous window.
func (m *machine) awaitLeft(l *liar) {
	m.t.Helper()
	for len(l.left) > 0 {
		<-l.left
	}
	for range 2 {
		select {
		case <-l.left:
		case <-m.ctx.Done():
			m.t.Fatalf("QEMU does not leave: %s", m.vm.Messages())
		}
	}
}

// startAgentUnder starts the agent of a guest whose backend is l, and returns when l
// has read a message of it.
func (m *machine) startAgentUnder(l *liar) {
	m.t.Helper()
	before := l.messages.Load()
	if err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath); err != nil {
		m.t.Fatal(err)
	}
	for l.messages.Load() == before {
		if m.ctx.Err() != nil {
			m.t.Fatal("the agent does not say hello")
		}
		time.Sleep(time.Millisecond)
	}
}

// hints begins a migration to a file, cancels it after the exchange, and returns the
// status of the hints.
func (m *machine) hints() string {
	m.t.Helper()
	return m.hintFigures().Status
}

// hintFigures does what hints does, and returns all figures of the hints.
func (m *machine) hintFigures() *vm.Hints {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "nowhere")
	args := map[string]any{"max-bandwidth": int64(1 << 20)}
	if err := m.vm.Execute(m.ctx, "migrate-set-parameters", args, nil); err != nil {
		m.t.Fatal(err)
	}
	if err := m.vm.Execute(m.ctx, "migrate", map[string]any{"uri": "file:" + file}, nil); err != nil {
		m.t.Fatal(err)
	}
	var figures *vm.Migration
	for figures == nil || figures.Hints == nil {
		var err error
		if figures, err = m.vm.QueryMigrate(m.ctx); err != nil {
			m.t.Fatal(err)
		}
		if figures.Status == "failed" {
			m.t.Fatalf("the migration failed: %s", figures.ErrorDesc)
		}
		time.Sleep(time.Millisecond)
	}
	if err := m.vm.CancelMigration(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	return figures.Hints
}
