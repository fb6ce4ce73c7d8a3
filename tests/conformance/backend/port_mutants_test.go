// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// portConn is the device's end of the serial port, with a defect.
type portConn struct {
	net.Conn
	read  func(p []byte)      // changes what the device reads
	write func(p []byte) bool // false: the device does not write it
	stays bool                // the device does not close it
}

func (c *portConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.read != nil {
		c.read(p[:n])
	}
	return n, err
}

func (c *portConn) Write(p []byte) (int, error) {
	if c.write != nil && !c.write(p) {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *portConn) Close() error {
	if c.stays {
		return nil
	}
	return c.Conn.Close()
}

// Devices with a serial port: one keeps the rules, the others do not.
func TestDefectsOfTheSerialPortAreFound(t *testing.T) {
	for _, tc := range []struct {
		defect string
		broken func(c *portConn)
		rules  string
		want   report.Outcome
	}{
		{"none", func(*portConn) {}, "FBPP-PORT-*", report.Pass},
		{"it does not close the port", func(c *portConn) { c.stays = true }, "FBPP-PORT-3", report.Fail},
		{"a driver that could report is not asked", askOnce, "FBPP-PORT-4", report.Fail},
		{"a report of yesterday is taken", takeStale, "FBPP-PORT-5", report.Fail},
		{"each refusal counts", believeAll, "FBPP-PORT-7", report.Fail},
	} {
		t.Run(tc.defect, func(t *testing.T) {
			t.Parallel()
			d := device.New(device.Options{
				Logger: zap.NewNop(), WindowSize: 1 << 16, Port: device.PortReport,
			})
			c := backend.Config{
				SocketPath: serve(t, d.VhostUser()), Profile: backend.FreePage(),
				Patience: patienceFor(tc.want), AgentPath: filepath.Join(t.TempDir(), "agent"),
			}
			l, err := net.Listen("unix", c.AgentPath)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					broken := &portConn{Conn: conn}
					tc.broken(broken)
					_ = d.ServePort(broken)
					defer conn.Close()
				}
			}()
			defer func() {
				l.Close()
				<-served
			}()
			for id, r := range results(t, c, tc.rules) {
				if r.Outcome != tc.want {
					t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
				}
			}
		})
	}
}

// askOnce leaves out each CHANGED but the first.
func askOnce(c *portConn) {
	asked := false
	c.write = func(p []byte) bool {
		e, err := protocol.DecodeEvent(p)
		if err != nil || e.Type != protocol.EventChanged {
			return true
		}
		first := !asked
		asked = true
		return first
	}
}

// believeAll makes of each refusal one that concerns contents.
func believeAll(c *portConn) {
	c.read = func(p []byte) {
		h, err := protocol.DecodeHeader(p)
		if err == nil && h.Type == protocol.MessageHello && h.Status == protocol.StatusUnsupported {
			h.Status = protocol.StatusContentMatters
			h.Encode(p)
		}
	}
}

// takeStale gives each report the generation of the newest request.
func takeStale(c *portConn) {
	var newest atomic.Uint64
	c.write = func(p []byte) bool {
		if e, err := protocol.DecodeEvent(p); err == nil && e.Type == protocol.EventReportFree {
			newest.Store(e.Generation)
		}
		return true
	}
	c.read = func(p []byte) { // the suite's messages begin where a read does
		if h, err := protocol.DecodeHeader(p); err == nil && h.Type == protocol.MessageReport {
			h.Generation = newest.Load()
			h.Encode(p)
		}
	}
}
