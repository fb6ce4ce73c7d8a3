// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// After a reset the old kernel's data are still in memory. So QEMU tells a backend
// that reads the guest's memory of each reset, and of each guest that has arrived by
// migration.
func TestResetsAreTold(t *testing.T) {
	p := startPeeker(t, protocol.WindowFeaturePeek)
	m := start(t, config(p.socket))
	w, boot := m.boots(p)
	m.execute("set-action", map[string]any{"reboot": "reset"}) // by default a reset ends QEMU here
	for range 3 {
		m.execute("system_reset", nil)
		m.await("the backend is told", func() bool {
			return w.get32(protocol.WindowBootOffset) == boot+1
		})
		boot++
	}

	elsewhere := startPeeker(t, protocol.WindowFeaturePeek)
	dst := startIncoming(t, config(elsewhere.socket))
	w, boot = dst.boots(elsewhere)
	m.begin(dst)
	m.awaitAsked(p).publish(protocol.AnswerRefused)
	m.end(dst)
	dst.await("the backend is told", func() bool {
		return w.get32(protocol.WindowBootOffset) == boot+1
	})
}

// boots waits for a window, and returns it with its count of boots. QEMU writes the
// present count where it takes the window, and answers the monitor after that.
func (m *machine) boots(p *peeker) (*rawWindow, uint32) {
	m.t.Helper()
	m.awaitConnectedTo(p)
	m.execute("query-status", nil)
	w := p.window.Load()
	return w, w.get32(protocol.WindowBootOffset)
}

// A backend without PEEK is not told of resets.
func TestResetsAreNotToldWithoutPeek(t *testing.T) {
	p := startPeeker(t, protocol.WindowFeatureOutcome)
	m := start(t, config(p.socket))
	m.awaitConnectedTo(p)
	w := p.window.Load()
	m.execute("set-action", map[string]any{"reboot": "reset"})
	m.execute("system_reset", nil)
	m.execute("query-status", nil) // is answered after the reset
	if boot := w.get32(protocol.WindowBootOffset); boot != 0 {
		t.Errorf("boot is %d", boot)
	}
}
