// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/vhostuser"
)

const (
	// portBacklog is how many events wait for a guest that does not read its port. The
	// sockets between hold some more.
	portBacklog = 8
	// portPatience is how long a message may take from its first byte to its last. The guest
	// may have been reset in the middle of one.
	portPatience = 5 * time.Second
	// portMessage is the length of the longest message in bytes.
	portMessage = protocol.HeaderSize + protocol.MaxPortRecords*protocol.RecordSize +
		protocol.TrailerSize
)

// port is a connection of the serial port.
type port struct{ events chan protocol.Event }

// send is Source.sendEvent for the port. It never waits.
func (p *port) send(e protocol.Event) bool {
	select {
	case p.events <- e:
		return true
	default:
		return false
	}
}

// portFrame is a message that came by the port.
type portFrame []byte

func (f portFrame) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f).ReadAt(p, off)
}

func (f portFrame) Readable() []vhostuser.Segment { return []vhostuser.Segment{{Bytes: f}} }
func (f portFrame) ReadableLen() uint32           { return uint32(len(f)) }
func (f portFrame) WritableLen() uint32           { return 0 }

// ServePort serves one connection of the guest's serial port (docs/spec.md, section 7.4), and
// closes it. It returns when the connection ends, which is no error, or carries anything but
// messages: where the next one begins is not known then [FBPP-PORT-3]. It keeps one message at
// a time, and never waits for the guest to read. Serve one connection at a time.
func (s *Source) ServePort(conn net.Conn) error {
	p := &port{events: make(chan protocol.Event, portBacklog)}
	written := make(chan struct{})
	go func() {
		defer close(written)
		p.write(conn)
	}()
	s.mu.Lock()
	s.port = p
	s.invite()
	s.mu.Unlock()
	err := s.readPort(conn, p)
	conn.Close()
	s.mu.Lock()
	s.leave(p)
	s.mu.Unlock()
	close(p.events) // nobody sends to it any more
	<-written
	return err
}

// write writes the events to the guest, until the channel is closed.
func (p *port) write(conn net.Conn) {
	var b [protocol.EventSize]byte
	for e := range p.events {
		e.Encode(b[:])
		if _, err := conn.Write(b[:]); err != nil {
			conn.Close() // which ends the reader, too
		}
	}
}

func (s *Source) readPort(conn net.Conn, p *port) error {
	r := bufio.NewReaderSize(conn, portMessage)
	buf := make([]byte, portMessage)
	for {
		_ = conn.SetReadDeadline(time.Time{}) // it fails on a closed one, as the read does
		if _, err := r.Peek(1); errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read from serial port: %w", err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(portPatience))
		f, err := s.readFrame(r, buf)
		if err != nil {
			if errors.Is(err, protocol.ErrMalformed) {
				s.mu.Lock()
				s.completeAt(p, source.Failf(protocol.AnswerBadReport, "%v", err))
				s.mu.Unlock()
			}
			return err
		}
		s.mu.Lock()
		err = s.message(f, p)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// readFrame reads one message into buf. Its header says how long it is.
func (s *Source) readFrame(r io.Reader, buf []byte) (portFrame, error) {
	if _, err := io.ReadFull(r, buf[:protocol.HeaderSize]); err != nil {
		return nil, fmt.Errorf("read message from serial port: %w", err)
	}
	h, err := protocol.DecodeHeader(buf)
	switch {
	case err != nil:
		return nil, err
	case h.Type.IsProgram(), h.Type != protocol.MessageHello && !s.portReports:
		return nil, fmt.Errorf("%v by the serial port: %w", h, protocol.ErrMalformed)
	case h.Count > protocol.MaxPortRecords: // [FBPP-PORT-6]
		return nil, fmt.Errorf("%v by the serial port, which takes %d records at a time: %w",
			h, protocol.MaxPortRecords, protocol.ErrMalformed)
	}
	f := portFrame(buf[:h.Size()])
	if _, err := io.ReadFull(r, f[protocol.HeaderSize:]); err != nil {
		return nil, fmt.Errorf("read %v from serial port: %w", h.Type, err)
	}
	return f, nil
}

// invite asks the driver at the port for a HELLO, if there is one, or has it say once more
// that it refuses [FBPP-PORT-4]. s.mu is held, as in all that follows.
func (s *Source) invite() {
	if s.port == nil {
		return
	}
	e := protocol.Event{Type: protocol.EventChanged}
	if s.portReports {
		e.Flags = protocol.EventHelloWanted
	}
	if !s.port.send(e) {
		s.lg.Debug("the guest does not read its serial port")
	}
}

// portHello looks at a HELLO by the port. It returns false if it has no other effect than
// that the driver is told that it may report. A refusal because contents matter counts at once,
// whatever else the driver says [FBPP-HELLO-2].
func (s *Source) portHello(h protocol.Header, body *protocol.Hello) (bool, error) {
	body.Features &^= protocol.FeaturePrograms // they go by the device only
	able := body.Features&protocol.FeaturePort != 0
	switch {
	case h.Status == protocol.StatusOK && !s.portReports:
		return false, fmt.Errorf("%v by the serial port, which takes refusals only: %w",
			h, protocol.ErrMalformed)
	case h.Status == protocol.StatusOK || contentMatters(h.Status, body.Features):
		return true, nil
	case able && s.portReports:
		s.invite()
		return false, nil
	case s.eventq != nil && s.identity != nil && !s.identity.Port && !s.identity.Refuses():
		// Perhaps a second agent was started [FBPP-PORT-7].
		s.lg.Info("driver refuses by the serial port, and that of the device reports",
			zap.Stringer("status", h.Status), zap.String("reason", body.Reason))
		return false, nil
	}
	return true, nil
}

// link returns the way to the driver: the port, or nil for the queues.
func (s *Source) link() *port {
	if s.identity.Port {
		return s.port
	}
	return nil
}

// leave ends the use of a connection. What a driver has refused by it stays [FBPP-PORT-2].
func (s *Source) leave(p *port) {
	s.port = nil
	s.completeAt(p, source.Failf(protocol.AnswerNoDriver, "the serial port was closed"))
	if s.identity != nil && s.identity.Port && !s.identity.Refuses() {
		s.forget()
		s.lookForDevice()
	}
}

// lookForDevice asks a driver of the device for a HELLO, if there is one: that of the port has
// taken its place.
func (s *Source) lookForDevice() {
	if s.eventq != nil {
		s.wanted = false
		s.wantHello()
	}
}

// SetBoot sets the frontend's count of resets of the machine, and of times that its memory
// was replaced. The device's driver shows a reset by itself. The serial port does not: after
// a change its driver is asked for a HELLO.
func (s *Source) SetBoot(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.boot
	s.boot = &n
	if before == nil || *before == n {
		return
	}
	if s.identity != nil && s.identity.Port && !s.identity.Refuses() {
		s.lg.Info("the machine was reset: its driver is asked anew")
		s.complete(source.Failf(protocol.AnswerCancelled, "the machine was reset"))
		s.forget()
		s.lookForDevice()
	}
}
