// SPDX-License-Identifier: Apache-2.0

// Package qmp talks to a QEMU over a connection to its QMP server.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Error is QEMU's error reply to a command.
type Error struct {
	Command string `json:"-"`
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s: QEMU says: %s", e.Command, e.Desc) }

// Monitor is a QMP connection. It is safe for concurrent use: commands run one at a
// time. It keeps the newest events, as far as it has read them, which it does while it
// waits for a reply.
type Monitor struct {
	conn net.Conn

	mu     sync.Mutex // held for a whole command
	in     *json.Decoder
	events []event
}

// event is something that QEMU said unasked.
type event struct {
	name string
	data json.RawMessage
}

// keptEvents is how many events are kept.
const keptEvents = 1000

// message is anything that QEMU sends.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"` // of an event
	Return   json.RawMessage `json:"return"`
	Error    *Error          `json:"error"`
}

// New takes over a connection to a QMP server and negotiates. It closes conn
// if that fails.
func New(ctx context.Context, conn net.Conn) (*Monitor, error) {
	m := &Monitor{conn: conn, in: json.NewDecoder(bufio.NewReader(conn))}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var greeting message
	if err := m.in.Decode(&greeting); err != nil || greeting.Greeting == nil {
		return nil, errors.Join(fmt.Errorf("read QEMU's greeting: %w", err), conn.Close())
	}
	if err := m.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return m, nil
}

// Execute runs a command and stores what it returns in result, unless that is nil. If
// ctx ends meanwhile the connection is closed, and later commands fail.
func (m *Monitor) Execute(ctx context.Context, command string, args, result any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { m.conn.Close() })
	defer stop()

	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %w", command, errors.Join(err, ctx.Err()))
	}
	for {
		var reply message
		if err := m.in.Decode(&reply); err != nil {
			return fmt.Errorf("%s: read the answer: %w", command, errors.Join(err, ctx.Err()))
		}
		switch {
		case reply.Event != "":
			m.events = append(m.events, event{reply.Event, reply.Data})
			m.events = m.events[max(0, len(m.events)-keptEvents):]
			continue
		case reply.Error != nil:
			reply.Error.Command = command
			return reply.Error
		case result != nil:
			if err := json.Unmarshal(reply.Return, result); err != nil {
				return fmt.Errorf("%s: decode the answer: %w", command, err)
			}
		}
		return nil
	}
}

// Events returns the data of the events of one name, the newest last.
func (m *Monitor) Events(name string) (data []json.RawMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if e.name == name {
			data = append(data, e.data)
		}
	}
	return data
}

// Close closes the connection.
func (m *Monitor) Close() error { return m.conn.Close() }
