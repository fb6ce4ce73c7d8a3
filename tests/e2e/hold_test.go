// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// With hints little is left to send. QEMU soon estimates that the rest fits into the
// downtime limit, and stops the guest in the middle of the first pass. With
// hold-switchover the guest runs on while another pass makes the rest smaller.
func TestGuestIsNotStoppedInTheFirstPass(t *testing.T) {
	m := boot(t, setup{})
	m.integrity("pause")
	share := func(f *vm.Migration) float64 {
		return float64(f.RAM.DowntimeBytes) / float64(f.RAM.Transferred)
	}

	m.setDevice("hold-switchover", false)
	f := m.migrateBy(slowIntoALongDowntime())
	requireHints(t, f, "ok")
	if share(f) < 0.5 {
		t.Fatalf("without a hold only %d of %d bytes were sent while the guest stood still:"+
			" this says nothing about the hold", f.RAM.DowntimeBytes, f.RAM.Transferred)
	}
	m.awaitDriver()

	m.setDevice("hold-switchover", true)
	f = m.migrateBy(slowIntoALongDowntime())
	requireHints(t, f, "ok")
	if share(f) > 0.2 {
		t.Errorf("%d of %d bytes were sent while the guest stood still",
			f.RAM.DowntimeBytes, f.RAM.Transferred)
	}
	t.Logf("%d of %d bytes were sent while the guest stood still, %d ms",
		f.RAM.DowntimeBytes, f.RAM.Transferred, f.Downtime)
	m.integrity("resume")
	m.requireSound()
}

// A guest that writes all the time is not held for ever.
func TestHoldEndsInABusyGuest(t *testing.T) {
	m := boot(t, setup{})
	f := m.migrateBy(slowIntoALongDowntime())
	requireHints(t, f, "ok")
	m.requireSound()
}

// slowIntoALongDowntime is a transfer whose downtime all that there is to send fits into.
// So QEMU would stop the guest as soon as it has measured the bandwidth.
func slowIntoALongDowntime() vm.Transfer {
	return vm.Transfer{Bandwidth: 50 << 20, Parameters: map[string]any{"downtime-limit": 2000}}
}
