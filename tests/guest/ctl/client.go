// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrClosed is wrapped by the errors of a client whose channel is gone: the
// QEMU process at its other end has ended.
var ErrClosed = errors.New("guest channel closed")

// Client is the host's end of the order channel. It is safe for concurrent use.
type Client struct {
	conn  io.ReadWriteCloser
	ready chan string // gets the release when the guest says it is ready

	mu      sync.Mutex // guards the rest, and writes to conn
	lastID  uint64
	waiting map[uint64]chan Reply
	err     error // why the channel ended
}

// NewClient takes over conn and reads it until it ends.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{conn: conn, ready: make(chan string, 1), waiting: make(map[uint64]chan Reply)}
	go c.read()
	return c
}

// Close closes the channel. Calls that wait return [ErrClosed].
func (c *Client) Close() error { return c.conn.Close() }

// Ready waits until the guest has booted and returns its kernel's release.
func (c *Client) Ready(ctx context.Context) (string, error) {
	select {
	case release, ok := <-c.ready:
		if !ok {
			return "", c.reason()
		}
		return release, nil
	case <-ctx.Done():
		return "", fmt.Errorf("wait for the guest to boot: %w", context.Cause(ctx))
	}
}

// Do sends a request and waits for its reply. A reply that carries an error is
// returned as an error.
func (c *Client) Do(ctx context.Context, r Request) (Reply, error) {
	answer, id, err := c.send(r)
	if err != nil {
		return Reply{}, fmt.Errorf("order %s: %w", r.Op, err)
	}
	defer c.forget(id)
	select {
	case reply, ok := <-answer:
		if !ok {
			return Reply{}, fmt.Errorf("order %s: %w", r.Op, c.reason())
		}
		if reply.Error != "" {
			return reply, fmt.Errorf("order %s %s: guest: %s", r.Op, r.Name, reply.Error)
		}
		return reply, nil
	case <-ctx.Done():
		return Reply{}, fmt.Errorf("order %s %s %q: %w", r.Op, r.Name, r.Args, context.Cause(ctx))
	}
}

// send gives r a number and writes it.
func (c *Client) send(r Request) (<-chan Reply, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, 0, c.err
	}
	c.lastID++
	r.ID = c.lastID
	line, err := json.Marshal(r)
	if err != nil {
		return nil, 0, err
	}
	// The newline in front ends a partial line that the port may still hold.
	if _, err := fmt.Fprintf(c.conn, "\n%s\n", line); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	answer := make(chan Reply, 1)
	c.waiting[r.ID] = answer
	return answer, r.ID, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// read hands out replies until the channel ends.
func (c *Client) read() {
	in := bufio.NewReader(c.conn)
	var err error
	for err == nil {
		var line []byte
		if line, err = in.ReadBytes('\n'); err != nil {
			break
		}
		var r Reply
		if json.Unmarshal(line, &r) == nil {
			c.deliver(r)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	for _, answer := range c.waiting {
		close(answer)
	}
	clear(c.waiting)
	close(c.ready)
}

func (c *Client) deliver(r Reply) {
	if r.ID == 0 {
		select {
		case c.ready <- r.Ready:
		default: // the guest booted twice: its first release is kept
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer, ok := c.waiting[r.ID]; ok {
		answer <- r
		delete(c.waiting, r.ID)
	}
}
