// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// When QEMU is killed, its fbppd unmaps the guest's memory, closes every
// descriptor and serves the next QEMU. That holds at the destination, where the
// source runs on, and at the source.
func TestQEMUKilledAtRandomInstants(t *testing.T) {
	n := rounds(6, 300)
	r := random(t)
	timeout := hangTimeout + time.Duration(n)*time.Minute
	m := boot(t, setup{memoryMiB: 256, poolPages: 4096, timeout: timeout})
	there, err := vm.StartBackend(m.ctx, parts.FBPPD)
	if err != nil {
		t.Fatal(err)
	}
	m.closers = append(m.closers, func() { there.Close() })
	idle := held(t, there.PID())
	if idle.memory != 0 {
		t.Fatalf("with no QEMU fbppd holds %+v", idle)
	}
	for range n {
		config := m.config
		config.Backend = there.Socket
		dst, err := vm.StartIncoming(m.ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.vm.StartMigration(m.ctx, dst, 16<<20); err != nil { // too slow to complete
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.Int64N(int64(600 * time.Millisecond))))
		dst.Close()
		if figures, err := m.vm.WaitMigration(m.ctx, nil); err != nil || figures.Status != "failed" {
			t.Fatalf("the migration ended as %+v, %v", figures, err)
		}
		m.requireHolding(there, idle)
	}
	m.requireSound()
	m.startMigration(16 << 20)
	time.Sleep(time.Duration(r.Int64N(int64(600 * time.Millisecond))))
	m.vm.Close()
	m.requireHolding(m.backend, idle)
	m.reboot()
	requireHints(t, m.migrate(), "ok")
}

// requireHolding waits until an fbppd whose QEMU was killed holds no more than
// want, which it held before any QEMU connected.
func (m *machine) requireHolding(b *vm.Backend, want holdings) {
	m.t.Helper()
	for {
		// Fewer descriptors are no fault: when want was counted, a connection to
		// the control socket may still have been open.
		have := held(m.t, b.PID())
		if have.memory == want.memory && have.descriptors <= want.descriptors {
			return
		}
		if m.ctx.Err() != nil {
			m.t.Fatalf("after its QEMU was killed fbppd holds %+v, and it held %+v before any QEMU",
				have, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// reboot boots a new guest, without the integrity program, at the fbppd whose
// QEMU was killed.
func (m *machine) reboot() {
	m.t.Helper()
	m.retryBoot(func() error {
		config := m.config
		config.Backend = m.backend.Socket
		v, err := vm.Start(m.ctx, config)
		if err != nil {
			return err
		}
		m.closers = append(m.closers, func() { v.Close() })
		m.vm = v
		if _, err := v.Boot(m.ctx); err != nil {
			return err
		}
		return m.tryAgent()
	})
}

// holdings are the resources of QEMU that an fbppd can keep.
type holdings struct {
	descriptors int
	memory      int // mappings of guest memory, hint windows, dirty logs
}

// held returns what the fbppd of this pid holds now.
func held(t testing.TB, pid int) holdings {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	h := holdings{descriptors: len(fds)}
	maps, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "maps"))
	if err != nil {
		t.Fatal(err)
	}
	h.memory = strings.Count(string(maps), "memfd:")
	return h
}

// An fbppd that is stopped with SIGSTOP holds up nothing for long. The exchange
// ends at hint-timeout, and QEMU waits for the reply to its next vhost-user
// message for backend-timeout. When fbppd continues, QEMU uses it again.
func TestFBPPDStopped(t *testing.T) {
	m := boot(t, setup{device: map[string]string{"hint-timeout": "5000"}})
	m.signalAgent(syscall.SIGSTOP) // holds the request open
	dst, backend := m.startMigration(1 << 20)
	m.awaitRequest()
	m.backend.Signal(syscall.SIGSTOP)
	m.awaitHints("timeout") // the monitor is alive
	m.backend.Signal(syscall.SIGCONT)
	m.speedUp()
	requireHints(t, m.arrive(dst, backend), "timeout")
	m.signalAgent(syscall.SIGCONT)
	m.requireSound()
	m.awaitDriver()
	m.setDevice("hint-timeout", 20000)

	// fbppd is stopped before the migration begins, and reads not even its first message.
	m.backend.Signal(syscall.SIGSTOP)
	requireHints(t, m.migrate(), "no-backend")
	m.requireSound()
	m.awaitDriver()

	// fbppd continues in the middle of a migration, and serves the next one.
	m.backend.Signal(syscall.SIGSTOP)
	dst, backend = m.startMigration(1 << 20)
	m.awaitHints("no-backend")
	m.backend.Signal(syscall.SIGCONT)
	m.awaitDriver()
	m.speedUp()
	requireHints(t, m.arrive(dst, backend), "no-backend")
	m.requireSound()
	m.awaitDriver()
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}
