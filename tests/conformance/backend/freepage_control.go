// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// switchTo switches the device by fbppd's control socket, and back with the
// end of the check.
func (s *session) switchTo(on bool) {
	c := control.NewClient(s.cfg.ControlPath)
	if _, err := c.SetEnabled(s.Context(), on); err != nil {
		s.Errorf("switch the device: %v", err)
	}
	if !on {
		s.Cleanup(func() { _, _ = c.SetEnabled(s.Context(), true) })
	}
}

func (s *session) needControl() {
	s.need(s.cfg.ControlPath != "", "needs a way to switch the device (--control-path)")
}

func fpConfigChange(s *session) {
	s.needControl()
	m := s.bootDriver()
	for _, on := range []bool{false, true} {
		s.switchTo(on)
		m.configChanged()
		p, err := m.f.GetConfig(0, protocol.ConfigSize)
		s.must(err, "read the configuration")
		c, err := protocol.DecodeConfig(p)
		s.must(err, "read the configuration")
		if got := c.Flags&protocol.ConfigEnabled != 0; got != on {
			s.Failf("the device was switched to %v, its configuration says %v", on, got)
		}
	}
}

func fpSwitchedOff(s *session) {
	s.needControl()
	m := s.bootDriver()
	s.switchTo(false)
	m.ask()
	m.expectStatus(fpDisabled, "the device is switched off")
	m.noEvent(protocol.EventReportFree)
	s.switchTo(true)
	m.exchange()
}
