// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/fbpp-project/fbpp/device/placement"
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
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
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

// maxPlacement bounds what a client reads of a placement.
const maxPlacement = 64 << 20

// Placement says where the guest's memory is, and returns the ranges of its classes, in the order
// in which they are worth moving.
func (c *Client) Placement(ctx context.Context) (*placement.Memory, []placement.Ranges, error) {
	body, err := c.do(ctx, http.MethodGet, "/v1/placement", nil)
	if err != nil {
		return nil, nil, err
	}
	defer body.Close()
	dec := json.NewDecoder(io.LimitReader(body, maxPlacement))
	m := new(placement.Memory)
	if err := dec.Decode(m); err != nil {
		return nil, nil, fmt.Errorf("decode where the guest's memory is: %w", err)
	}
	var all []placement.Ranges
	for {
		var r placement.Ranges
		if err := dec.Decode(&r); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, fmt.Errorf("decode the guest's memory by class: %w", err)
		}
		if len(r.Ranges) == 0 {
			return m, all, nil
		}
		all = append(all, r)
	}
}
