// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/census"
)

// maxAnswer bounds what a client reads of an answer. The largest is a census.
const maxAnswer = 4 << 20

// Client talks to the control socket of one device. It is safe for concurrent use
// and holds no connection open between calls. Only its context bounds how long a
// call takes. Without a device at the socket, the error wraps that of connect(2).
type Client struct {
	http *http.Client
}

// NewClient returns a client of the socket at path, which need not exist yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
}

// Status returns the device's state.
func (c *Client) Status(ctx context.Context) (s device.Status, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// SetEnabled switches the optimisation on or off and returns the state after it.
func (c *Client) SetEnabled(ctx context.Context, on bool) (s device.Status, err error) {
	err = c.ask(ctx, http.MethodPut, "/v1/enabled", setEnabled{Enabled: &on}, &s)
	return s, err
}

// Census counts what the guest uses its memory for.
func (c *Client) Census(ctx context.Context) (*census.Census, error) {
	return c.census(ctx, "/v1/census")
}

// GuestCensus has the guest count, by the census program that it has in use.
func (c *Client) GuestCensus(ctx context.Context) (*census.Census, error) {
	return c.census(ctx, "/v1/census?from=guest")
}

func (c *Client) census(ctx context.Context, path string) (*census.Census, error) {
	result := new(census.Census)
	if err := c.ask(ctx, http.MethodGet, path, nil, result); err != nil {
		return nil, err
	}
	return result, nil
}

// SampleWorkingSet has the guest find which memory it uses in an interval. It waits for that, and
// for the guest's look at its memory.
func (c *Client) SampleWorkingSet(
	ctx context.Context, interval time.Duration,
) (*device.WorkingSet, error) {
	result, in := new(device.WorkingSet), setSample{IntervalMS: interval.Milliseconds()}
	if err := c.ask(ctx, http.MethodPost, "/v1/sample", in, result); err != nil {
		return nil, err
	}
	return result, nil
}

// History returns the outcomes of the newest migrations, the newest last.
func (c *Client) History(ctx context.Context) (all []device.Migration, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/history", nil, &all)
	return all, err
}

// Watch calls f with the state now and after changes, until f returns an error,
// which Watch returns, or ctx ends. Changes in quick succession may come as one.
func (c *Client) Watch(ctx context.Context, f func(device.Status) error) error {
	body, err := c.do(ctx, http.MethodGet, "/v1/watch", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		var s device.Status
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return fmt.Errorf("watch device: %w", err)
		}
		if err := f(s); err != nil {
			return err
		}
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF // the device went away
	}
	return fmt.Errorf("watch device: %w", err)
}

// ask sends a request with the body in, unless that is nil, and decodes the answer
// into out.
func (c *Client) ask(ctx context.Context, method, path string, in, out any) error {
	var payload bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&payload).Encode(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	return c.send(ctx, method, path, &payload, out)
}

// send is ask for a body that is encoded already.
func (c *Client) send(ctx context.Context, method, path string, payload io.Reader, out any) error {
	body, err := c.do(ctx, method, path, payload)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("decode the device's answer: %w", err)
	}
	return nil
}

// do sends a request and returns the body of a successful answer, which the caller
// closes.
func (c *Client) do(
	ctx context.Context, method, path string, payload io.Reader,
) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://fbppd"+path, payload)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the device: %w", errors.Unwrap(err))
	}
	if resp.StatusCode == http.StatusNotFound {
		resp.Body.Close()
		return nil, fmt.Errorf("ask the device: fbppd does not know %s: it is of another version", path)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		return nil, fmt.Errorf("ask the device: %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}
