// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
)

// magic ends an object that has a signature. The signature's size is before it, in 4 bytes, and
// before that is the signature.
const magic = "fbpp kernel signature 1\n"

// maxSignature is the largest signature in bytes that the kernel takes.
const maxSignature = 8 << 10

// ErrTrailer says that an object ends as one with a signature, but has none.
var ErrTrailer = errors.New("the signature for the kernel is cut off")

// Append returns the object with a signature, instead of one that it has.
func Append(object, signature []byte) ([]byte, error) {
	file, _, err := Split(object)
	if err != nil {
		return nil, err
	}
	if len(signature) == 0 || len(signature) > maxSignature {
		return nil, errors.New("the signature is empty, or larger than the kernel takes")
	}
	size := binary.LittleEndian.AppendUint32(nil, uint32(len(signature)))
	return slices.Concat(file, signature, size, []byte(magic)), nil
}

// Split returns the ELF file of an object and its signature, which is nil if it has none. Both are
// parts of the object.
func Split(object []byte) (file, signature []byte, err error) {
	rest, ok := bytes.CutSuffix(object, []byte(magic))
	if !ok {
		return object, nil, nil
	}
	if len(rest) < 4 {
		return nil, nil, ErrTrailer
	}
	rest, size := rest[:len(rest)-4], binary.LittleEndian.Uint32(rest[len(rest)-4:])
	if size == 0 || size > maxSignature || uint64(size) > uint64(len(rest)) {
		return nil, nil, ErrTrailer
	}
	end := len(rest) - int(size)
	return rest[:end:end], rest[end:], nil
}
