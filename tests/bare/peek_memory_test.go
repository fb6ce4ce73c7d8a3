// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/vm"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// A backend without PEEK gets no guest memory before a driver starts. QEMU does not
// ask it about a paused guest, nor about a guest without a driver.
func TestBackendThatDoesNotPeek(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status string
		do     func(m *machine, p *peeker)
	}{
		{"paused", "not-running", func(m *machine, p *peeker) {
			m.startDriver(low)
			m.awaitSees(p, low)
			m.execute("stop", nil)
		}},
		{"paused, and switched off", "not-running", func(m *machine, _ *peeker) {
			if err := m.SetDevice(m.ctx, "hints", false); err != nil {
				m.t.Fatal(err)
			}
			m.execute("stop", nil)
		}},
		{"without a driver", "no-driver", func(m *machine, p *peeker) {
			time.Sleep(aWhile)
			if p.sees(low) {
				m.t.Error("the backend has memory that it has no use for")
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, dst, p := peeks(t, protocol.WindowFeatureOutcome, nil)
			tc.do(m, p)
			if figures := m.migrate(dst, vm.Transfer{}); figures.HintStatus() != tc.status {
				t.Errorf("the hints ended with %q, want %q", figures.HintStatus(), tc.status)
			}
			w := p.window.Load()
			if w.get64(protocol.WindowAskGenerationOffset) != 0 {
				t.Error("QEMU asks a backend without PEEK")
			}
		})
	}
}

// A backend with PEEK sees all of the guest's memory without a driver. It sees memory
// that is plugged in later, also after a driver has started and stopped.
func TestMemoryOfAGuestWithoutADriver(t *testing.T) {
	p := startPeeker(t, protocol.WindowFeaturePeek)
	c := config(p.socket)
	c.Options = []string{"-m", "64M,slots=2,maxmem=1G"}
	m := start(t, c)
	m.awaitSees(p, low)
	plug := func(id string) {
		t.Helper()
		m.execute("object-add", map[string]any{
			"qom-type": "memory-backend-memfd", "id": "m" + id, "size": 64 << 20,
		})
		m.execute("device_add", map[string]any{"driver": "pc-dimm", "id": id, "memdev": "m" + id})
	}
	plug("first")
	m.awaitSees(p, 1<<32)
	m.startDriver(1 << 32)
	m.stopDriver()
	plug("second")
	m.awaitSees(p, 1<<32+64<<20)
	m.requireSaid()
}

// At a destination a backend with PEEK gets the guest's memory only after all of it
// has arrived. With postcopy, reading a page too early would put a zero page there
// for good.
func TestMemoryOfADestination(t *testing.T) {
	uffd, err := vhostuser.OpenUserfault()
	if err != nil {
		t.Fatal(err)
	}
	defer uffd.Close()
	for _, tc := range []struct {
		name     string
		postcopy bool
		paused   bool
		backend  vhostuser.Option
	}{
		{name: "precopy"},
		{name: "precopy of a paused guest", paused: true},
		{name: "postcopy", postcopy: true, backend: vhostuser.WithUserfault(uffd)},
		{name: "postcopy that the backend cannot take part in", postcopy: true,
			backend: vhostuser.WithoutPostcopy()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var options []vhostuser.Option
			if tc.backend != nil {
				options = append(options, tc.backend)
			}
			source, p := startFBPPD(t), startPeeker(t, protocol.WindowFeaturePeek, options...)
			c := config(source.Socket)
			m := start(t, c)
			m.fill(filled, filledSize, 0x5a)
			c.Backend = p.socket
			dst := startIncoming(t, c)
			dst.awaitConnectedTo(p)
			pc := &postcopy{t: t, m: m, dst: dst}
			if tc.paused {
				m.execute("stop", nil)
			}
			if tc.postcopy {
				pc.begin()
			} else {
				if err := m.StartMigration(m.ctx, dst.VM, slowly); err != nil {
					t.Fatal(err)
				}
				pc.awaitStatus(dst, "active")
			}
			requireBlind(t, p)
			if tc.postcopy {
				pc.switchOver()
				requireBlind(t, p)
			}
			pc.end()
			if err := dst.Arrive(dst.ctx); err != nil {
				t.Fatal(err)
			}
			dst.awaitSees(p, filled)
			if !tc.paused {
				pc.requireWhole()
			}
		})
	}
}

func requireBlind(t testing.TB, p *peeker) {
	t.Helper()
	time.Sleep(aWhile)
	if p.sees(filled) {
		t.Fatal("the backend has guest memory before all of it has arrived")
	}
}
