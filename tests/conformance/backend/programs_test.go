// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// programMutant is a device that reads only messages about programs, and answers them as its
// hooks say.
type programMutant struct {
	mu     sync.Mutex
	events *vhostuser.Queue
	first  uint64 // nonce

	old   bool // its configuration lacks the flag PROGRAMS
	hello func(m *programMutant)
	gone  func(nonce uint64) []uint64 // of the answers to a GET
}

func (m *programMutant) device() *vhostuser.Device {
	d := device.New(device.Options{Logger: zap.NewNop(), WindowSize: 1 << 16}).VhostUser()
	started, kick, config := d.QueueStarted, d.Kick, d.ReadConfig
	d.ReadConfig = func(p []byte, off uint32) error {
		err := config(p, off)
		if m.old && off == 0 {
			p[0] &^= protocol.ConfigPrograms
		}
		return err
	}
	d.QueueStarted = func(q *vhostuser.Queue) {
		started(q)
		if q.Index() == protocol.EventQueue {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.events = q
		}
	}
	d.Kick = func(q *vhostuser.Queue) {
		if q.Index() == protocol.EventQueue {
			kick(q)
			return
		}
		for {
			c, err := q.Pop()
			if c == nil || err != nil {
				return
			}
			m.message(c)
			if q.Push(c, 0) != nil || q.Notify() != nil {
				return
			}
		}
	}
	return d
}

func (m *programMutant) message(c *vhostuser.Chain) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var p [protocol.HeaderSize]byte
	if _, err := c.ReadAt(p[:], 0); err != nil {
		return
	}
	h, err := protocol.DecodeHeader(p[:])
	switch {
	case err != nil:
	case h.Type == protocol.MessageHello && m.hello != nil:
		m.hello(m)
	case h.Type == protocol.MessageAccepts && m.first == 0:
		m.first = h.Generation
	case h.Type == protocol.MessageGet && m.gone != nil:
		for _, nonce := range m.gone(h.Generation) {
			m.send(nonce)
		}
	}
}

// send sends GONE.
func (m *programMutant) send(nonce uint64) {
	e := protocol.ProgramEvent{Type: protocol.EventGone, Nonce: nonce}
	p := make([]byte, e.Size())
	e.Encode(p)
	for {
		c, err := m.events.Pop()
		if c == nil || err != nil {
			return
		}
		n := uint32(0)
		if int(c.WritableLen()) >= len(p) {
			_, _ = c.WriteAt(p, 0)
			n = uint32(len(p))
		}
		if m.events.Push(c, n) != nil || m.events.Notify() != nil || n > 0 {
			return
		}
	}
}

func TestDefectsInProgramsAreFound(t *testing.T) {
	for defect, c := range map[string]struct {
		mutant func() *programMutant
		rule   string
	}{
		"events about programs come before ACCEPTS": {func() *programMutant {
			return &programMutant{hello: func(m *programMutant) { m.send(1) }}
		}, "FBPP-PROG-2"},
		"the nonce is that of the first ACCEPTS": {func() *programMutant {
			m := &programMutant{}
			m.gone = func(uint64) []uint64 { return []uint64{m.first} }
			return m
		}, "FBPP-PROG-4"},
		"GET is not answered": {func() *programMutant { return &programMutant{} }, "FBPP-PROG-6"},
		"programs without the flag": {func() *programMutant {
			return &programMutant{old: true}
		}, "FBPP-PROG-9"},
	} {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			config := backend.Config{
				SocketPath: serve(t, c.mutant().device()), Profile: backend.FreePage(),
				Patience: time.Second,
			}
			if r := results(t, config, c.rule)[c.rule]; r.Outcome != report.Fail {
				t.Errorf("%s: %v %s", c.rule, r.Outcome, r.Detail)
			}
		})
	}
}
