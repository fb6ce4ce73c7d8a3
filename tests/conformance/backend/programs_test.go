// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// programMutant is a device that reads only messages about programs, and answers them as its
// hooks say.
type programMutant struct {
	*device.Device // what is pushed to it is the mutant's

	mu     sync.Mutex
	events *vhostuser.Queue
	first  uint64 // nonce
	newest uint64 // nonce

	old   bool // its configuration lacks the flag PROGRAMS
	hello func(m *programMutant)
	gone  func(nonce uint64) []uint64                                    // of the answers to a GET
	data  func(b *bundle.Bundle, g protocol.Get) []protocol.ProgramEvent // answers to a GET

	// begun is called at ACCEPTS. It may be nil.
	begun func()

	// about reads any other message. nil: it is not read
	about func(h protocol.Header, body []byte)

	pushed *bundle.Bundle // nil: none
}

// PushProgram keeps a program, which is offered at the next ACCEPTS.
func (m *programMutant) PushProgram(file []byte, _ driver.When) error {
	b, err := bundle.Decode(file)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pushed = b
	return err
}

func (m *programMutant) WithdrawProgram(string) error { return nil }

// part is the right answer to a GET.
func part(b *bundle.Bundle, g protocol.Get) protocol.ProgramEvent {
	end := g.Offset + min(g.Length, protocol.MinProgramBuffer-protocol.DataHead)
	if uint64(g.Offset)+uint64(g.Length) > uint64(len(b.Object)) {
		return protocol.ProgramEvent{Type: protocol.EventGone, Digest: g.Digest}
	}
	return protocol.ProgramEvent{
		Type: protocol.EventData, Digest: g.Digest, Offset: g.Offset,
		Bytes: bytes.Clone(b.Object[g.Offset:end]),
	}
}

func (m *programMutant) device() *vhostuser.Device {
	m.Device = device.New(device.Options{Logger: zap.NewNop(), WindowSize: 1 << 16})
	d := m.VhostUser()
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
	case h.Type == protocol.MessageAccepts:
		if m.first == 0 {
			m.first = h.Generation
		}
		m.newest = h.Generation
		if m.begun != nil {
			m.begun()
		}
		if m.pushed != nil {
			m.send(protocol.ProgramEvent{
				Type: protocol.EventOffer, Nonce: h.Generation, Offer: m.pushed.Offer,
			})
		}
	case h.Type != protocol.MessageGet && m.about != nil:
		body := make([]byte, h.Size()-protocol.HeaderSize)
		if _, err := c.ReadAt(body, protocol.HeaderSize); err == nil {
			m.about(h, body)
		}
	case h.Type == protocol.MessageGet && m.gone != nil:
		for _, nonce := range m.gone(h.Generation) {
			m.send(protocol.ProgramEvent{Type: protocol.EventGone, Nonce: nonce})
		}
	case h.Type == protocol.MessageGet && m.data != nil:
		body := make([]byte, protocol.GetSize)
		if _, err := c.ReadAt(body, protocol.HeaderSize); err != nil {
			return
		}
		g, err := protocol.DecodeGet(body)
		if err != nil {
			return
		}
		for _, e := range m.data(m.pushed, g) {
			e.Nonce = h.Generation
			m.send(e)
		}
	}
}

func (m *programMutant) send(e protocol.ProgramEvent) {
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

// spare says whether the driver has left more than one event buffer. m.mu is held.
func (m *programMutant) spare() bool {
	one, err := m.events.Pop()
	if one == nil || err != nil {
		return false
	}
	two, err := m.events.Pop()
	if two != nil && err == nil {
		err = m.events.Unpop(two)
	}
	return m.events.Unpop(one) == nil && two != nil && err == nil
}

func TestDefectsInDataAreFound(t *testing.T) {
	for answers, data := range map[string]func(*bundle.Bundle, protocol.Get) []protocol.ProgramEvent{
		"": func(b *bundle.Bundle, g protocol.Get) []protocol.ProgramEvent {
			return []protocol.ProgramEvent{part(b, g)}
		},
		"wrong bytes": func(b *bundle.Bundle, g protocol.Get) []protocol.ProgramEvent {
			e := part(b, g)
			if len(e.Bytes) > 0 {
				e.Bytes[len(e.Bytes)-1]++
			}
			return []protocol.ProgramEvent{e}
		},
		"two DATA": func(b *bundle.Bundle, g protocol.Get) []protocol.ProgramEvent {
			return []protocol.ProgramEvent{part(b, g), part(b, g)}
		},
		"two GONE": func(b *bundle.Bundle, g protocol.Get) []protocol.ProgramEvent {
			e := part(b, g)
			if e.Type == protocol.EventGone {
				return []protocol.ProgramEvent{e, e}
			}
			return []protocol.ProgramEvent{e}
		},
		"DATA past the end": func(b *bundle.Bundle, g protocol.Get) []protocol.ProgramEvent {
			e := part(b, g)
			if e.Type == protocol.EventGone {
				e.Type, e.Offset, e.Bytes = protocol.EventData, g.Offset, make([]byte, g.Length)
			}
			return []protocol.ProgramEvent{e}
		},
	} {
		t.Run(answers, func(t *testing.T) {
			t.Parallel()
			m := &programMutant{data: data}
			want := report.Fail
			if answers == "" { // the mutant itself has no other defect
				want = report.Pass
			}
			config := backend.Config{
				SocketPath: serve(t, m.device()), Profile: backend.FreePage(),
				Patience: patienceFor(want), ControlPath: serveControl(t, m),
			}
			const rule = "FBPP-PROG-6"
			if r := results(t, config, rule)[rule]; r.Outcome != want {
				t.Errorf("%s: %v %s", rule, r.Outcome, r.Detail)
			}
		})
	}
}

func TestDefectsInProgramsAreFound(t *testing.T) {
	for defect, c := range map[string]struct {
		mutant func() *programMutant
		rule   string
	}{
		"events about programs come before ACCEPTS": {func() *programMutant {
			return &programMutant{hello: func(m *programMutant) {
				m.send(protocol.ProgramEvent{Type: protocol.EventGone, Nonce: 1})
			}}
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
