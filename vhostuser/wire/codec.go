// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort says that a payload is shorter than its type or its own counts say.
var ErrShort = errors.New("payload is too short")

// ErrTrailing says that bytes follow the end of a payload.
var ErrTrailing = errors.New("payload is too long")

// reader decodes little-endian integers. After the first read beyond the end
// it stays short, and returns zeroes.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.short, r.b = true, nil
		return make([]byte, n)
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// end reports the error of the whole decoding of a payload named what.
func (r *reader) end(what string) error {
	switch {
	case r.short:
		return fmt.Errorf("decode %s: %w", what, ErrShort)
	case len(r.b) != 0:
		return fmt.Errorf("decode %s: %d bytes left: %w", what, len(r.b), ErrTrailing)
	}
	return nil
}

func put32(b []byte, vs ...uint32) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func put64(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
