// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// localFrom is a VM whose memory is its own, and arrives from a pool.
func localFrom(pool, name, memory string) vm.Config {
	c := config("")
	c.Options = []string{"-name", name}
	return sizedFrom(c, c.MemoryMiB, pool, memory)
}

// sizedFrom gives such a VM that much memory, in MiB.
func sizedFrom(c vm.Config, mib int, pool, memory string) vm.Config {
	c.MemoryMiB = mib
	c.Memory = []string{fmt.Sprintf("%s,id=ram,size=%dM,pool=%s", memory, mib, pool)}
	return c
}

// own is memory of a VM's own.
const own = "memory-backend-memfd,share=on"

// startPattern starts a VM on a pool, and has two kinds of memory in it: what no other run
// has, and every second page zero.
func startPattern(t testing.TB, pool string) *machine {
	t.Helper()
	m := startOnPool(t, pool, "first")
	for at := uint64(holes); at < holes+holesSize; at += 2 * pageSize {
		m.do("writeq %#x %#x", at, ^at)
		m.do("writeq %#x 0", at+pageSize) // a page of zeroes is no hole of the file
	}
	return m
}

// arriveFromPool hands the memory over, to a machine that brings a page a second by itself.
func (m *machine) arriveFromPool(dst *machine) *vm.Migration {
	m.t.Helper()
	by := byHandover()
	dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": pageSize})
	return m.migrate(dst, by)
}

// atFullSpeed has the rest of a machine's memory arrive.
func (m *machine) atFullSpeed() vm.Load {
	m.t.Helper()
	m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
	return m.awaitLoaded()
}

// memoryIn returns what is in a pool. A read of a VM's memory would fill the holes of the file.
func memoryIn(t testing.TB, pool string) []byte {
	t.Helper()
	content, err := os.ReadFile(pool)
	if err != nil {
		t.Fatal(err)
	}
	return content[:all]
}

// requireRAM checks that a machine's memory is what was in a pool, where nothing is mapped over it.
func (m *machine) requireRAM(want []byte) {
	m.t.Helper()
	const vga, ram = 0xa0000, 1 << 20
	got := m.memory()
	if !bytes.Equal(got[:vga], want[:vga]) || !bytes.Equal(got[ram:], want[ram:]) {
		m.t.Error("memory is another than was written")
	}
}

// inUse returns the bytes of a file that take space.
func inUse(t testing.TB, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// A VM runs at the destination at once. The source is not needed any more. What is touched
// comes from the pool, what was never written or is zero is not brought, and the rest comes by
// itself. Then the memory is like any other, and the pool is empty and free.
func TestArrivalFromAPool(t *testing.T) {
	for _, tc := range []struct {
		name, memory string
		pages        int  // of 2 MiB, that the test needs
		whole        bool // no hole in the end: there may be no room when one is needed
	}{
		{name: "shared memory", memory: own},
		{name: "anonymous memory", memory: "memory-backend-ram"},
		{name: "preallocated memory", memory: own + ",prealloc=on", whole: true},
		{name: "huge pages", memory: own + ",hugetlb=on,hugetlbsize=2M", pages: 32, whole: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab.ReserveHugePages(t, tc.pages)
			pool := newPool(t)
			m := startPattern(t, pool)
			want := memoryIn(t, pool)
			dst := startIncoming(t, localFrom(pool, "second", tc.memory))
			figures := m.arriveFromPool(dst)
			if figures.RAM.Transferred > handedOver {
				t.Errorf("%d bytes were sent for memory that lies in the pool", figures.RAM.Transferred)
			}
			dst.requireRuns()
			requireRefused(t, m.cont(), "does not have the lease", "held by "+dst.identity())
			m.kill()

			dst.requireRefusals()
			dst.awaitHoles()
			before := dst.requireLoading()
			if got := dst.number("readq %#x", holes); got != ^uint64(holes) {
				t.Errorf("a page of the pool reads %#x", got)
			}
			if got := dst.number("readq %#x", all-4<<20); got != 0 {
				t.Errorf("a page that was never written reads %#x", got)
			}
			during := dst.requireLoading()
			if during.Faults != before.Faults+2 || during.ZeroFaults != before.ZeroFaults+1 {
				t.Errorf("two pages were touched: %+v, and %+v before", during, before)
			}
			dst.do("writeq %#x 0x1234", filled) // and does not come back
			copy(want[filled:], []byte{0x34, 0x12, 0, 0, 0, 0, 0, 0})
			after := dst.atFullSpeed()
			if after.Remaining != 0 || after.Read > after.Total || after.Total >= all ||
				after.Read < filledSize/2 {
				t.Errorf("it ended with %+v", after)
			}
			if got := dst.wholeInUse(); tc.whole && got < all-1<<20 { // not exact on all kernels
				t.Errorf("%d bytes of memory are there, and all is to be", got)
			}
			dst.requireRAM(want)
			dst.requireNothingLeft(pool)
			if n := inUse(t, pool); n > 2*2<<20 {
				t.Errorf("%d bytes of the pool are in use", n)
			}
			next := start(t, onPool(pool, "next", "on")) // the lease is free
			next.requireRuns()
			dst.requireRAM(want)
			dst.capabilities("-x-ignore-shared")
			dst.migrate(startIncoming(t, config("")), vm.Transfer{})
		})
	}
}

// Memory that is zero, or was never written, takes nothing at the destination.
func TestArrivalLeavesZeroesOut(t *testing.T) {
	pool := newPool(t)
	m := startPattern(t, pool)
	m.fill(16<<20, 8<<20, 0)
	want := memoryIn(t, pool)
	dst := startIncoming(t, localFrom(pool, "second", own))
	m.migrate(dst, byHandover())
	after := dst.awaitLoaded()
	dst.requireRuns()
	if got := dst.sharedInUse(); got > after.Total-8<<20 {
		t.Errorf("%d bytes of memory are in use, the pool had %d, and 8 MiB of them were zero",
			got, after.Total)
	}
	dst.requireRAM(want)
}

// Who reads all of the memory at once competes with the background, page by page. Each page is
// placed by one of them.
func TestArrivalIsReadAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name, memory string
		pages        int // of 2 MiB, that the test needs
	}{
		{"shared memory", own, 0},
		{"preallocated memory", own + ",prealloc=on", 0},
		{"huge pages", own + ",hugetlb=on,hugetlbsize=2M", 32},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab.ReserveHugePages(t, tc.pages)
			pool := newPool(t)
			m := startPattern(t, pool)
			want := memoryIn(t, pool)
			dst := startIncoming(t, localFrom(pool, "second", tc.memory))
			m.migrate(dst, byHandover())
			dst.requireRAM(want)
			dst.awaitLoaded()
			dst.requireRuns()
			dst.requireRAM(want)
			if said := dst.Messages(); strings.Contains(said, "failed") {
				t.Errorf("QEMU said %q", said)
			}
		})
	}
}

// The background can be held, for as long as one likes. What is needed still comes.
func TestArrivalIsHeld(t *testing.T) {
	pool := newPool(t)
	m := startPattern(t, pool)
	want := memoryIn(t, pool)
	dst := startIncoming(t, localFrom(pool, "second", own))
	m.arriveFromPool(dst)
	dst.awaitHoles()
	held := dst.hold()
	if got := dst.number("readq %#x", holes+8<<12); got != ^uint64(holes+8<<12) {
		t.Errorf("a page of the pool reads %#x", got)
	}
	if now := dst.requireHeld(); now.Faults != held.Faults+1 || now.Read != held.Read+pageSize {
		t.Errorf("a page was touched: %+v, and %+v before", now, held)
	}
	dst.goOn()
	dst.awaitLoaded()
	dst.requireRAM(want)
}

// awaitHoles waits until what was never written is left out, after startPattern.
func (m *machine) awaitHoles() {
	m.t.Helper()
	m.await("the holes of the pool are known", func() bool {
		return m.requireLoading().Total < filledSize+holesSize+4<<20
	})
}

// hold holds the background, and checks that nothing comes by itself however fast it may.
func (m *machine) hold() vm.Load {
	m.t.Helper()
	m.execute("migrate-pause", nil)
	if err := m.Execute(m.ctx, "migrate-pause", nil, nil); err == nil {
		m.t.Error("what is held was held again")
	}
	m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
	const looks = 300 * time.Millisecond // QEMU does it ten times a second
	var held vm.Load
	m.await("what was on its way is there", func() bool {
		held = m.requireHeld()
		time.Sleep(looks)
		return m.requireHeld().Read == held.Read
	})
	time.Sleep(looks)
	if now := m.requireHeld(); now.Read != held.Read {
		m.t.Errorf("%d bytes came by themselves", now.Read-held.Read)
	}
	return held
}

// goOn lets go of the background.
func (m *machine) goOn() {
	m.t.Helper()
	m.execute("migrate-continue", map[string]any{"state": "postcopy-paused"})
}

// requireHeld returns the figures of an arrival that is held.
func (m *machine) requireHeld() vm.Load {
	m.t.Helper()
	figures, err := m.QueryMigrate(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if figures.Load == nil || figures.Status != "postcopy-paused" || figures.Load.Remaining == 0 {
		m.t.Fatalf("no arrival is held: %+v", figures)
	}
	return *figures.Load
}

// fbppd at the destination takes part as in postcopy, and sees what has arrived.
func TestArrivalWithABackend(t *testing.T) {
	source, b := startFBPPD(t), startFBPPD(t)
	pool := newPool(t)
	c := onPool(pool, "first", "on")
	c.Backend = source.Socket
	m := start(t, c)
	m.pattern()
	m.startDriver(low)
	m.awaitStarted(source)
	want := memoryIn(t, pool)
	c = localFrom(pool, "second", own)
	c.Backend = b.Socket
	dst := startIncoming(t, c)
	dst.awaitConnected(b)
	m.arriveFromPool(dst)
	dst.await("the backend takes part", func() bool {
		return strings.Contains(b.Log(), "POSTCOPY_LISTEN")
	})
	dst.startDriver(low)
	dst.requireLoading()
	dst.atFullSpeed()
	dst.startDriver(low)
	dst.awaitStarted(b)
	dst.requireRuns()
	got := dst.memory()
	if !bytes.Equal(want[filled:], got[filled:]) { // the driver has written below
		t.Error("memory is another than was written")
	}
}

// A VM that could not have its memory from a pool does not start.
func TestNoArrivalWithoutAPool(t *testing.T) {
	pool, plain := newPool(t), newPool(t)
	startOnPool(t, pool, "first")
	if err := os.WriteFile(plain, make([]byte, all+pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	named := "memory-backend-file,share=on,mem-path=" + newPool(t)
	requireRefusedStart(t, localFrom(pool, "second", own), "with -incoming only")
	for _, tc := range []struct{ pool, memory, said string }{
		{plain, own, "'" + plain + "' is no pool"},
		{plain + "s", own, "'" + plain + "s' is no pool"},
		{pool, named, "that stays there"},
		{pool, "memory-backend-file,share=off,mem-path=" + pool, "has a lease"}, // it would empty it
	} {
		c := localFrom(tc.pool, "second", tc.memory)
		c.Options = append(c.Options, "-incoming", "defer")
		requireRefusedStart(t, c, tc.said)
	}
}

// What cannot be is refused before the source has stopped.
func TestArrivalRefused(t *testing.T) {
	handover := byHandover().Capabilities
	for _, tc := range []struct {
		name string
		dup  bool
		caps []string // of the source, and of the destination
		said string
	}{
		{"a copy of the pool", true, handover, "does not have its RAM 'ram' in this"},
		{"multifd", false, append(handover, "multifd"), "without multifd only"},
		{"memory that is sent", false, []string{"return-path"}, "needs x-ignore-shared"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pool := newPool(t)
			m := startPattern(t, pool)
			from := pool
			if tc.dup {
				from = newPool(t)
				if err := copyFile(from, pool); err != nil {
					t.Fatal(err)
				}
			}
			dst := startIncoming(t, localFrom(from, "second", own))
			for _, side := range []*machine{m, dst} {
				side.capabilities(append(tc.caps, "events")...)
			}
			uri := "unix:" + newPool(t)
			dst.execute("migrate-incoming", map[string]any{"uri": uri, "exit-on-error": false})
			m.execute("migrate", map[string]any{"uri": uri})
			failed := dst.awaitFailed().ErrorDesc
			dst.await("it says why", func() bool {
				return containsAll(failed+dst.Messages(), []string{tc.said})
			})
			m.awaitFailed()
			m.requireNeverStopped()
		})
	}
}
