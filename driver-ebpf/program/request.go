// SPDX-License-Identifier: Apache-2.0

package program

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// request is what a child is to load.
type request struct {
	Kind        protocol.ProgramKind
	Limits      Limits
	KernelCheck KernelCheck
	Constants   map[string]uint64 // values of variables, as far as the object has them
	Maps        []string          // that the agent made; the socket has them in this order
	Rehearsal   bool              // the object is the agent's own, and its program is not loaded
	Size        int               // of the object
	Object      []byte            `json:"-"`
}

// encode returns the request as the child reads it: JSON, and then the object as it is. To have
// JSON hold the object would take milliseconds of an emulated processor.
func (r *request) encode() ([]byte, error) {
	r.Size = len(r.Object)
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode what to load: %w", err)
	}
	return append(text, r.Object...), nil
}

// readRequest reads a request of the agent, and no more.
func readRequest(from io.Reader) (r request, err error) {
	d := json.NewDecoder(from)
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("read what to load: %w", err)
	}
	r.Object = make([]byte, r.Size)
	if _, err := io.ReadFull(io.MultiReader(d.Buffered(), from), r.Object); err != nil {
		return r, fmt.Errorf("read the object: %w", err)
	}
	return r, nil
}
