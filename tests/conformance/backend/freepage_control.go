// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"net"

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

// fpPort are the rules of the serial port.
func fpPort() []check {
	const source = "spec.md, section 7.4"
	return []check{
		{id: "FBPP-PORT-2", source: source,
			text: "A HELLO by the port has the effect of one on reportq, until a driver starts eventq.",
			run:  fpPortHello},
		{id: "FBPP-PORT-3", source: source,
			text: "At anything but a HELLO that refuses the device closes its end of the port," +
				" and opens it anew.",
			run: fpPortNonsense},
	}
}

// port connects to the device's end of the port, as the machine monitor does.
func (s *session) port() net.Conn {
	s.need(s.cfg.AgentPath != "", "needs the socket of the serial port (--agent-socket)")
	c, err := net.Dial("unix", s.cfg.AgentPath)
	s.must(err, "connect to the port")
	s.Cleanup(func() { _ = c.Close() })
	return c
}

func fpPortHello(s *session) {
	port := s.port()
	m := s.boot(bootOptions{stopped: true, Options: windowOptions})
	fm := m.withWindow()
	_, err := port.Write(helloMessage(protocol.StatusLockdown, 0))
	s.must(err, "write a HELLO to the port")
	fm.until(fpRefused, "after a HELLO by the port that refuses")
	m.f.Close()
	again := s.bootDriver()
	again.exchange()
}

func fpPortNonsense(s *session) {
	for _, p := range [][]byte{helloMessage(protocol.StatusOK, 0), pattern(5, 192)} {
		port := s.port()
		_, err := port.Write(p)
		s.must(err, "write to the port")
		s.must(port.SetReadDeadline(deadlineAfter(s.cfg.Patience)), "set deadline")
		var b [1]byte
		if _, err := port.Read(b[:]); !closed(err) {
			s.Failf("the device did not close the port: %v", err)
		}
	}
	fpPortHello(s)
}
