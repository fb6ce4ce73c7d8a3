// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// startArrival is [startHandover] to a destination with memory of its own.
func startArrival(t *testing.T, until string, paused bool) *handover {
	t.Helper()
	return handOver(t, until, paused, func(pool string) vm.Config {
		return localFrom(pool, "second", own)
	})
}

// requireArrives checks that the destination runs, and that all that was written arrives. A
// source that lives is refused, also when the pool is empty and its lease free.
func (h *handover) requireArrives(t *testing.T, source *machine) {
	t.Helper()
	refused := func() {
		if source != nil {
			requireRefused(t, source.cont(), "does not have the lease")
			requireStopped(t, source)
		}
	}
	h.dst.await("the VM runs", func() bool {
		status, err := h.dst.Status(h.dst.ctx)
		return err == nil && status == "running"
	})
	refused()
	h.dst.awaitLoaded()
	refused()
	h.dst.requireRAM(h.want)
	if n := inUse(t, h.pool); n > 1<<20 {
		t.Errorf("%d bytes of the pool are in use", n)
	}
}

// At most one of them runs, and who does has the memory that the source has left. As long as
// the destination does not run it reads what it needs to, and leaves the pool as it is.
func TestArrivalAfterTheSwitchover(t *testing.T) {
	t.Run("the source goes back first", func(t *testing.T) {
		h := startArrival(t, offer, true)
		h.arrive(t)
		h.dst.number("readl %#x", filled) // has arrived: it is lost when the source goes on
		if err := h.src.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireRunsOnly(t, h.src, h.dst)
		h.again(t, h.src)
	})
	t.Run("the destination goes on first", func(t *testing.T) {
		h := startArrival(t, offer, true)
		h.arrive(t)
		want := uint64(binary.LittleEndian.Uint32(h.want[filled:]))
		if got := h.dst.number("readl %#x", filled); got != want {
			t.Errorf("a VM that does not run reads %#x, want %#x", got, want)
		}
		time.Sleep(300 * time.Millisecond) // long enough for all of it
		if figures := h.dst.requireLoading(); figures.Read > 1<<20 {
			t.Errorf("it is not known who will run, and %d bytes were read", figures.Read)
		}
		if err := h.dst.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireArrives(t, h.src)
	})
	t.Run("the source is killed", func(t *testing.T) {
		h := startArrival(t, offer, true)
		h.arrive(t)
		h.src.kill()
		if err := h.dst.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireArrives(t, nil)
	})
	t.Run("the destination is killed before it takes the lease", func(t *testing.T) {
		h := startArrival(t, offer, true)
		h.arrive(t)
		h.dst.number("readl %#x", filled)
		h.dst.kill()
		if err := h.src.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireRunsOnly(t, h.src, nil)
		h.again(t, h.src)
	})
	t.Run("the destination is killed while memory arrives", func(t *testing.T) {
		h := startArrival(t, offer, true)
		h.arrive(t)
		h.dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": pageSize})
		if err := h.dst.cont(); err != nil {
			t.Fatal(err)
		}
		died := h.dst.identity() + ", which has died"
		h.dst.kill()
		requireRefused(t, h.src.cont(), "does not have the lease", "held by "+died)
	})
}

// A pool that cannot be read pauses the VM, and QEMU says what it could not read. Nothing takes
// the place of what is missing. When the pool is as it was, "cont" goes on.
func TestPoolFailsDuringAnArrival(t *testing.T) {
	pool := newPool(t)
	m := startPattern(t, pool)
	want := memoryIn(t, pool)
	dst := startIncoming(t, localFrom(pool, "second", own))
	m.arriveFromPool(dst)
	m.kill()
	dst.awaitHoles()
	k := keep(t, pool)
	const says = "the file ends there"
	if err := os.Truncate(pool, 1<<20); err != nil {
		t.Fatal(err)
	}
	dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
	dst.requirePausedBy(pool, says)
	requireRefused(t, dst.cont(), pool, "was truncated")
	dst.requirePausedBy(pool, says)

	k.restore(t)
	if err := dst.cont(); err != nil {
		t.Fatal(err)
	}
	dst.awaitLoaded()
	dst.requireRuns()
	dst.requireRAM(want)
}

// What comes from a pool that is another one's by now is not this VM's memory. Nobody can see that
// in a page of it.
func TestPoolIsAnotherOnesDuringAnArrival(t *testing.T) {
	for _, tc := range []struct {
		name string
		fail func(t testing.TB, pool string)
	}{
		{"it is taken by force, by a host that thinks that this one is dead", bump},
		{"it is truncated, and has its size again", func(t testing.TB, pool string) {
			for _, size := range []int64{0, all + pageSize} {
				if err := os.Truncate(pool, size); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pool := newPool(t)
			m := startPattern(t, pool)
			dst := startIncoming(t, localFrom(pool, "second", own))
			m.arriveFromPool(dst)
			m.kill()
			tc.fail(t, pool)
			dst.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
			dst.requirePausedBy(pool, "was truncated, or taken by another VM")
			requireRefused(t, dst.cont(), "does not have the lease")
		})
	}
}

// bump makes the lease another one's.
func bump(t testing.TB, pool string) {
	t.Helper()
	f, err := os.OpenFile(pool, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	word := make([]byte, 8) // the epoch is in the upper seven
	const at = all + 8
	if _, err := f.ReadAt(word, at); err != nil {
		t.Fatal(err)
	}
	word[1]++
	if _, err := f.WriteAt(word, at); err != nil {
		t.Fatal(err)
	}
}
