// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// patience ends a test that hangs. It asserts no speed.
const patience = 20 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// witness is a Watch whose answers the test sets.
type witness struct {
	mu      sync.Mutex
	begins  int
	offsets []uint64
	err     error
}

func (w *witness) Begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begins++
	return w.err
}

func (w *witness) Written(uint64) ([]uint64, error) { return w.offsets, w.err }

// rig is a device that writes a byte into each buffer, behind a relay.
type rig struct {
	t *testing.T
	r *Relay
	w *witness
	g *vhosttest.Guest
	f *vhosttest.Frontend
	q *vhosttest.Queue
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	backend, path := filepath.Join(dir, "b"), filepath.Join(dir, "r")
	l, err := vhostuser.Listen(backend)
	must(t, err)
	server, err := vhostuser.NewServer(&vhostuser.Device{NumQueues: 1, Kick: func(q *vhostuser.Queue) {
		for c, err := q.Pop(); c != nil && err == nil; c, err = q.Pop() {
			n, _ := c.WriteAt([]byte{1}, 0)
			_ = q.Push(c, uint32(n))
		}
		_ = q.Notify()
	}}, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		<-done
		must(t, l.Close())
	})

	x := &rig{t: t, w: &witness{}}
	x.r, err = Start(path, backend, x.w)
	must(t, err)
	t.Cleanup(func() { must(t, x.r.Close()) })
	x.g, err = vhosttest.NewGuest(1 << 20)
	must(t, err)
	t.Cleanup(x.g.Close)
	x.q, err = vhosttest.NewQueue(x.g, 0, 16)
	must(t, err)
	t.Cleanup(x.q.Close)
	x.f, err = vhosttest.Dial(path)
	must(t, err)
	t.Cleanup(x.f.Close)
	must(t, x.f.Realize(vhosttest.Options{Queues: []*vhosttest.Queue{x.q}}))
	must(t, x.f.Start(x.g, 1<<32, x.q))
	return x
}

// write has the device write to a new page, and returns its number.
func (x *rig) write() uint64 {
	x.t.Helper()
	addr := x.g.Alloc(1)
	_, err := x.q.Add(vhosttest.Buffer{Addr: addr, Len: 1, Write: true})
	must(x.t, err)
	must(x.t, x.q.Kick.Raise())
	_, err = x.q.Wait(patience)
	must(x.t, err)
	return addr / vhosttest.PageSize
}

// told converts pages to what Watch.Written returns for them.
func (x *rig) told(pages ...uint64) []uint64 {
	var offsets []uint64
	for _, p := range pages {
		offsets = append(offsets, p*vhosttest.PageSize-x.g.Blocks[0].Addr)
	}
	return offsets
}

func TestMarksReachTheFrontend(t *testing.T) {
	x := newRig(t)
	m, err := x.f.StartMigration(x.g, x.q)
	must(t, err)
	defer m.Close()
	for range 3 {
		x.write()
		must(t, m.SwapLog())
	}
	x.write()
	must(t, x.f.Stop(x.q))
	if missing := m.Missing(); len(missing) > 0 {
		t.Errorf("pages %#x do not reach the frontend", missing)
	}
}

func TestReportHoldsWhatWasNotMarked(t *testing.T) {
	for _, tt := range []struct {
		name     string
		sabotage Sabotage
		data     bool // whether marks of data are missing
		ring     bool
	}{
		{"of a sound backend", None, false, false},
		{"of a backend that marks nothing", HideLogAll, true, true},
		{"of a backend that does not mark its ring", HideRingLog, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newRig(t)
			x.r.Sabotage(tt.sabotage)
			if _, err := x.r.Report(); err == nil {
				t.Error("there is a report without logging")
			}
			m, err := x.f.StartMigration(x.g, x.q)
			must(t, err)
			defer m.Close()
			if !x.r.Logging() || x.w.begins == 0 {
				t.Error("the relay does not see logging begin")
			}
			data, ring := x.write(), x.q.UsedRing/vhosttest.PageSize
			if _, err := x.r.Report(); err == nil {
				t.Error("there is a report of a running device")
			}
			must(t, x.f.Stop(x.q))
			x.w.offsets = x.told(ring, data)
			report, err := x.r.Report()
			must(t, err)
			misses := func(page uint64) bool { return slices.Contains(report.Missing, page) }
			if len(report.Written) != 2 || misses(data) != tt.data || misses(ring) != tt.ring {
				t.Errorf("data %#x, ring %#x: %+v", data, ring, report)
			}
			// The frontend's log misses the same pages.
			missing := m.Missing()
			if slices.Contains(missing, data) != tt.data {
				t.Errorf("the frontend misses %#x", missing)
			}
		})
	}
}

func TestAPageThatTheDeviceNeverMarkedIsMissing(t *testing.T) {
	x := newRig(t)
	m, err := x.f.StartMigration(x.g, x.q)
	must(t, err)
	defer m.Close()
	x.write()
	must(t, x.f.Stop(x.q))
	other := x.g.Alloc(1) / vhosttest.PageSize
	x.w.offsets = x.told(other)
	report, err := x.r.Report()
	must(t, err)
	if !slices.Equal(report.Missing, []uint64{other}) {
		t.Errorf("got %+v", report)
	}
	x.w.err = errors.New("blind")
	if _, err := x.r.Report(); err == nil || !strings.Contains(err.Error(), "blind") {
		t.Errorf("without a witness: %v", err)
	}
	x.w.err = nil
}

func TestAFrontendThatGoesMakesRoomForTheNext(t *testing.T) {
	x := newRig(t)
	path := x.r.l.Addr().String()
	x.f.Close()
	f, err := vhosttest.Dial(path)
	must(t, err)
	defer f.Close()
	must(t, f.Realize(vhosttest.Options{}))
	if x.r.Logging() {
		t.Error("a new device logs already")
	}
}

func TestAnInvalidLogFailsTheRelay(t *testing.T) {
	x := newRig(t)
	fd, err := unix.MemfdCreate("empty", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	if _, err := x.f.Ask(wire.SetLogBase, wire.Log{Size: 4096}.AppendTo(nil), fd); err == nil {
		t.Error("an empty log was accepted")
	}
	if err := x.r.Close(); err == nil || !strings.Contains(err.Error(), "SET_LOG_BASE") {
		t.Errorf("the relay ended with %v", err)
	}
	x.r.failed = nil // checked above
}
