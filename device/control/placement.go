// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/device/placement"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// sendPlacement answers with lines: a placement.Memory, and then placement.Ranges. A line of them
// without ranges is the last one, so that an answer that was cut short is seen.
func sendPlacement(w http.ResponseWriter, r *http.Request, d Device) {
	ctx, cancel := context.WithTimeout(r.Context(), maxCensus)
	defer cancel()
	enc, conn := json.NewEncoder(w), http.NewResponseController(w)
	begun := false
	line := func(v any) error {
		begun = true
		// A client that does not read is disconnected: others wait for it. The error is
		// ignored: the response writers of tests have no deadlines.
		limit, _ := ctx.Deadline()
		if soon := time.Now().Add(patience); soon.Before(limit) {
			limit = soon
		}
		_ = conn.SetWriteDeadline(limit)
		return enc.Encode(v)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	err := d.Placement(ctx, func(m *placement.Memory) error { return line(m) },
		func(r placement.Ranges) error { return line(r) })
	switch {
	case err == nil:
		_ = line(placement.Ranges{})
	case !begun:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// What a client takes of a placement: the longest line, and the number of regions.
const (
	maxLine    = 1 << 20
	maxRegions = 4096
)

// Placement says where the guest's memory is, and returns the ranges of its classes, in the order
// in which they are worth moving. pid is the process that has the memory's files open, as the
// kernel says.
func (c *Client) Placement(
	ctx context.Context,
) (pid int, m *placement.Memory, all []placement.Ranges, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		pid, err = unixsock.PeerPID(info.Conn.(*net.UnixConn)) // as NewClient dials it
	}}
	body, asked := c.do(httptrace.WithClientTrace(ctx, trace), http.MethodGet, "/v1/placement", nil)
	if asked != nil {
		return 0, nil, nil, asked
	}
	defer body.Close()
	if err != nil {
		return 0, nil, nil, err
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	if m, err = readMemory(lines); err == nil {
		all, err = readRanges(lines)
	}
	return pid, m, all, err
}

func readMemory(lines *bufio.Scanner) (*placement.Memory, error) {
	m := new(placement.Memory)
	if err := readLine(lines, m); err != nil {
		return nil, fmt.Errorf("read where the guest's memory is: %w", err)
	}
	if n := len(m.Regions); n > maxRegions {
		return nil, fmt.Errorf("the guest's memory is in %d regions, more than any guest has", n)
	}
	return m, nil
}

func readRanges(lines *bufio.Scanner) (all []placement.Ranges, _ error) {
	for n := 0; ; {
		var r placement.Ranges
		if err := readLine(lines, &r); err != nil {
			return nil, fmt.Errorf("read the guest's memory by class: %w", err)
		}
		if len(r.Ranges) == 0 {
			return all, nil
		}
		if !slices.Contains(placement.Classes(), r.Class) {
			return nil, fmt.Errorf("read the guest's memory by class: there is no class %q", r.Class)
		}
		if n += len(r.Ranges); n > placement.MaxRanges {
			return nil, errors.New("read the guest's memory by class: there is no end of it")
		}
		all = append(all, r)
	}
}

// readLine decodes a line, which has to be there.
func readLine(lines *bufio.Scanner, v any) error {
	if !lines.Scan() {
		return cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
	}
	return json.Unmarshal(lines.Bytes(), v)
}
