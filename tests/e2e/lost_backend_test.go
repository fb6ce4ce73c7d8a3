// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/vm"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// A page that a backend has written and marked in the dirty log arrives, even if
// the backend is lost before QEMU reads the log again. QEMU keeps the log.
func TestPagesOfALostBackendAreSent(t *testing.T) {
	l, there := startLiar(t), startLiar(t)
	m := boot(t, setup{socket: l.socket})
	m.startAgentUnder(l)
	m.signalAgent(syscall.SIGSTOP) // a running agent would use the buffer again

	config := m.config
	config.Backend, config.Options = there.socket, []string{"-S"}
	dst, err := vm.StartIncoming(m.ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	// This is slower than the guest writes, so the migration cannot complete yet.
	if err := m.vm.StartMigration(m.ctx, dst, 24<<20); err != nil {
		t.Fatal(err)
	}
	m.awaitSyncs(3) // the first pass has sent the buffers

	q := l.backend.Load().Queue(protocol.EventQueue)
	c, err := q.Pop()
	if c == nil || err != nil {
		t.Fatalf("the agent has left no event buffer: %v, %v", c, err)
	}
	at, want := c.Writable()[0].Addr, bytes.Repeat([]byte{0xa5}, protocol.EventSize)
	if _, err := c.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := q.Push(c, protocol.EventSize); err != nil {
		t.Fatal(err)
	}
	l.hangUp()
	m.speedUp()
	figures, err := m.vm.WaitMigration(m.ctx, nil)
	if err != nil || figures.Status != "completed" {
		t.Fatalf("the migration ended as %+v, %v", figures, err)
	}
	if got := m.guestMemory(dst, at, len(want)); !bytes.Equal(got, want) {
		t.Errorf("the backend wrote %x at %#x, and %x arrived", want, at, got)
	}
}

// When a backend dies before it has read a request, the connection is reset. QEMU
// then reads an error instead of the end of the stream, in the middle of switching the
// backend's logging on. It migrates without the backend.
func TestBackendLostWhileLoggingStarts(t *testing.T) {
	l := startLiar(t)
	m := boot(t, setup{socket: startCut(t, l.socket, wire.SetLogBase)})
	m.startAgentUnder(l)
	m.setup.socket, m.config.Backend = "", ""
	requireHints(t, m.migrate(), "no-backend")
	m.requireSound()
	m.awaitDriver()
	requireHints(t, m.migrate(), "ok")
}

// awaitSyncs waits until the running migration has synchronized its dirty bitmap n
// times.
func (m *machine) awaitSyncs(n int64) {
	m.t.Helper()
	for {
		figures, err := m.vm.QueryMigrate(m.ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		if figures.RAM.SyncCount >= n {
			return
		}
		if figures.Ended() {
			m.t.Fatalf("the migration %s too early: %s", figures.Status, figures.ErrorDesc)
		}
		time.Sleep(time.Millisecond)
	}
}

// guestMemory returns n bytes of a guest's physical memory.
func (m *machine) guestMemory(v *vm.VM, at uint64, n int) []byte {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "memory")
	err := v.Execute(m.ctx, "pmemsave", map[string]any{"val": at, "size": n, "filename": file}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	p, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}
