// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// offer is in the stream after the source has stopped, and before the state of the first
// device: what the destination needs to take the lease.
const offer = "ram-lease-offer"

// handover is one that a test stops on its way.
type handover struct {
	pool     string
	src, dst *machine
	want     []byte // the memory
	stream   *stream
}

// startHandover begins one that stops at a text in the stream. The destination waits
// for cont if paused.
func startHandover(t *testing.T, until string, paused bool) *handover {
	t.Helper()
	return handOver(t, until, paused, func(pool string) vm.Config {
		return onPool(pool, "second", "on")
	})
}

// handOver is [startHandover] to a destination of any kind.
func handOver(
	t *testing.T, until string, paused bool, destination func(pool string) vm.Config,
) *handover {
	t.Helper()
	h := &handover{pool: newPool(t)}
	h.src = startOnPool(t, h.pool, "first")
	h.want = h.memory(t)
	c := destination(h.pool)
	if paused {
		c.Options = append(c.Options, "-S")
	}
	h.dst = startIncoming(t, c)
	for _, m := range []*machine{h.src, h.dst} {
		m.capabilities("x-ignore-shared", "return-path", "events")
	}
	dir := t.TempDir()
	to := filepath.Join(dir, "dst")
	h.dst.execute("migrate-incoming", map[string]any{"uri": "unix:" + to, "exit-on-error": false})
	h.stream = startStream(t, to, until)
	h.src.execute("migrate", map[string]any{"uri": "unix:" + h.stream.socket})
	h.src.await("the stream has come that far", h.stream.isHeld)
	return h
}

// memory reads it from the pool. TestHandover reads it at each side.
func (h *handover) memory(t *testing.T) []byte {
	t.Helper()
	return memoryIn(t, h.pool)
}

// arrive releases the stream, and waits until the source has completed.
func (h *handover) arrive(t *testing.T) {
	t.Helper()
	h.stream.release()
	figures, err := h.src.WaitMigration(h.src.ctx, nil)
	if err != nil || figures.Status != "completed" {
		t.Fatalf("the migration is %+v, %v", figures, err)
	}
}

// requireRunsOnly checks that one VM runs, another one is refused, and memory is whole.
func (h *handover) requireRunsOnly(t *testing.T, m, refused *machine) {
	t.Helper()
	m.await("the VM runs", func() bool {
		status, err := m.Status(m.ctx)
		return err == nil && status == "running"
	})
	if !bytes.Equal(h.want, h.memory(t)) {
		t.Error("memory is another than was written")
	}
	if refused != nil {
		requireStopped(t, refused)
		requireRefused(t, refused.cont(), "does not have the lease", "held by "+m.identity())
		requireStopped(t, refused)
	}
	requireNoStart(t, onPool(h.pool, "third", "on"), "held by "+m.identity())
}

// again hands the memory over once more, to a new destination.
func (h *handover) again(t *testing.T, m *machine) {
	t.Helper()
	dst := startIncoming(t, onPool(h.pool, "again", "on"))
	m.migrate(dst, byHandover())
	h.requireRunsOnly(t, dst, m)
}

// Before the destination has answered, the source runs as if there were no migration.
func TestHandoverEndsBeforeTheSwitchover(t *testing.T) {
	t.Run("the source is killed", func(t *testing.T) {
		h := startHandover(t, "", false)
		died := h.src.identity() + ", which has died"
		h.src.kill()
		h.stream.release()
		h.dst.awaitFailed()
		if got := h.dst.holder(); got != "held by "+died {
			t.Errorf("the lease is %q", got)
		}
		// The VM is lost, as one is whose QEMU is killed. The pool is not.
		m := start(t, onPool(h.pool, "third", "on"))
		m.awaitSaid("which was held by "+died, 1)
		m.requireRuns()
	})
	t.Run("the destination is killed", func(t *testing.T) {
		h := startHandover(t, "", false)
		h.dst.kill()
		h.src.awaitFailed()
		h.src.requireNeverStopped()
		h.again(t, h.src)
	})
	t.Run("cancel", func(t *testing.T) {
		h := startHandover(t, "", false)
		if err := h.src.CancelMigration(h.src.ctx); err != nil {
			t.Fatal(err)
		}
		h.src.requireNeverStopped()
		h.stream.release()
		h.dst.awaitFailed()
		h.again(t, h.src)
	})
}

// The source has offered its lease, and the destination does not have all of the stream.
func TestHandoverEndsInTheSwitchover(t *testing.T) {
	t.Run("the source is killed", func(t *testing.T) {
		h := startHandover(t, offer, false)
		died := "offered by " + h.src.identity() + ", which has died"
		h.src.kill()
		h.stream.release()
		// The destination may have got all of it, if the source was done
		h.dst.await("the destination has its end", func() bool {
			status, err := h.dst.Status(h.dst.ctx)
			m, merr := h.dst.QueryMigrate(h.dst.ctx)
			return err == nil && merr == nil && (status == "running" || m.Status == "failed")
		})
		if status, _ := h.dst.Status(h.dst.ctx); status == "running" {
			h.requireRunsOnly(t, h.dst, nil)
			return
		}
		// Nobody has the state of the devices. That is for people to say.
		requireNoStart(t, onPool(h.pool, "third", "on"), died, "lease=force")
		m := start(t, onPool(h.pool, "third", "force"))
		m.awaitSaid("which was "+died, 1)
		m.requireRuns()
	})
	for to, begin := range map[string]func(*testing.T, string, bool) *handover{
		"": startHandover, ", memory arrives": startArrival,
	} {
		t.Run("the destination is killed"+to, func(t *testing.T) {
			h := begin(t, offer, false)
			h.dst.kill()
			h.src.awaitFailed()
			h.requireRunsOnly(t, h.src, nil)
			h.again(t, h.src)
		})
		// The destination gets the whole stream when the source has taken its lease back.
		t.Run("cancel"+to, func(t *testing.T) {
			h := begin(t, offer, false)
			h.src.await("all is sent", h.stream.isWhole)
			if err := h.src.CancelMigration(h.src.ctx); err != nil {
				t.Fatal(err)
			}
			h.requireRunsOnly(t, h.src, nil)
			h.stream.release()
			h.dst.awaitSaid("this VM stays stopped", 1)
			h.requireRunsOnly(t, h.src, h.dst)
			h.dst.kill()
			h.again(t, h.src)
		})
	}
}

// The destination has all of the stream, and takes the lease when it starts.
func TestHandoverEndsAfterTheSwitchover(t *testing.T) {
	t.Run("the source is killed", func(t *testing.T) {
		h := startHandover(t, offer, true)
		h.arrive(t)
		requireStopped(t, h.dst)
		h.src.kill()
		requireNoStart(t, onPool(h.pool, "third", "on"), "offered by", "which has died")
		if err := h.dst.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireRunsOnly(t, h.dst, nil)
		h.again(t, h.dst)
	})
	t.Run("the source goes back first", func(t *testing.T) {
		h := startHandover(t, offer, true)
		h.arrive(t)
		if err := h.src.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireRunsOnly(t, h.src, h.dst)
		h.again(t, h.src)
	})
	t.Run("the destination goes on first", func(t *testing.T) {
		h := startHandover(t, offer, true)
		h.arrive(t)
		if err := h.dst.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireRunsOnly(t, h.dst, h.src)
	})
	t.Run("the destination is killed before it takes the lease", func(t *testing.T) {
		h := startHandover(t, offer, true)
		h.arrive(t)
		h.dst.kill()
		if err := h.src.cont(); err != nil {
			t.Fatal(err)
		}
		h.requireRunsOnly(t, h.src, nil)
		h.again(t, h.src)
	})
	t.Run("the destination is killed after it has taken the lease", func(t *testing.T) {
		h := startHandover(t, offer, false)
		h.arrive(t)
		died := h.dst.identity() + ", which has died"
		h.dst.kill()
		// Memory has gone on, and the source's devices have not.
		requireRefused(t, h.src.cont(), "does not have the lease", "held by "+died)
		m := start(t, onPool(h.pool, "third", "on"))
		m.awaitSaid("which was held by "+died, 1)
		requireRefused(t, h.src.cont(), "held by "+m.identity())
		m.requireRuns()
	})
}
