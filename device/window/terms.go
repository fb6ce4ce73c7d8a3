// SPDX-License-Identifier: Apache-2.0

package window

import (
	"encoding/binary"
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Terms are what the two sides have agreed on for one window.
type Terms struct {
	Version  uint32
	Features uint64 // none in version 1
}

// Agree reads the payload of a frontend's request for a window. It returns the
// newest version that both sides know, and those of the given features that the
// frontend offers. An empty payload is a request of version 1. A malformed one is
// an error that wraps protocol.ErrMalformed.
func Agree(payload []byte, features uint64) (Terms, error) {
	switch {
	case len(payload) == 0:
		return Terms{Version: protocol.WindowVersion1}, nil
	case len(payload) < protocol.WindowRequestSize:
		return Terms{}, fmt.Errorf("request for a hint window: %d bytes: %w",
			len(payload), protocol.ErrMalformed)
	}
	le := binary.LittleEndian
	switch version := le.Uint32(payload); version {
	case 0:
		return Terms{}, fmt.Errorf("request for a hint window: version 0: %w", protocol.ErrMalformed)
	case protocol.WindowVersion1:
		return Terms{Version: version}, nil
	}
	return Terms{
		Version:  protocol.WindowVersion2,
		Features: le.Uint64(payload[8:]) & features,
	}, nil
}

// Reply returns the payload of the reply that hands the window to the frontend.
func (w *Window) Reply() []byte {
	le := binary.LittleEndian
	p := make([]byte, protocol.WindowReplySize1, protocol.WindowReplySize2)
	le.PutUint32(p, w.terms.Version)
	le.PutUint64(p[8:], uint64(w.Size()))
	if w.terms.Version >= protocol.WindowVersion2 {
		p = le.AppendUint64(p, w.terms.Features)
	}
	return p
}
