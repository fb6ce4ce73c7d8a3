// SPDX-License-Identifier: Apache-2.0

// Package bundle has the file in which a program travels, and its signature
// (docs/spec.md, section 9.1).
//
// The file is Magic, an encoded [protocol.Offer], and the object, which is an ELF file. Host
// and guest read it, and neither trusts it: [Decode] says that a file is whole, and only
// [Verify] says who made it.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// Magic begins a file.
const Magic = "FBPPPRG1"

// MaxSize is the largest size of a file in bytes.
const MaxSize = len(Magic) + protocol.OfferSize + protocol.MaxProgramSize

// ErrDigest says that an object is not the one that its offer is about.
var ErrDigest = errors.New("the object is not the one that was offered")

// Bundle is a program with its description.
type Bundle struct {
	Offer  protocol.Offer
	Object []byte
}

// New returns an unsigned bundle of an object. It sets the offer's digest and size.
func New(o protocol.Offer, object []byte) (*Bundle, error) {
	if len(object) > protocol.MaxProgramSize {
		return nil, fmt.Errorf("make bundle: an object of %d bytes is larger than %d",
			len(object), protocol.MaxProgramSize)
	}
	o.Digest, o.Size = sha256.Sum256(object), uint32(len(object))
	o.Signature, o.KeyID = [protocol.SignatureSize]byte{}, [8]byte{}
	b := &Bundle{Offer: o, Object: object}
	if _, err := Decode(b.Encode()); err != nil { // a name that cannot be printed, for instance
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	return b, nil
}

// Encode returns the file.
func (b *Bundle) Encode() []byte {
	p := make([]byte, len(Magic)+protocol.OfferSize, len(Magic)+protocol.OfferSize+len(b.Object))
	copy(p, Magic)
	b.Offer.Encode(p[len(Magic):])
	return append(p, b.Object...)
}

// Decode reads a file, and checks its form, size and digest. The object is a part of p.
func Decode(p []byte) (*Bundle, error) {
	rest, ok := bytes.CutPrefix(p, []byte(Magic))
	if !ok {
		return nil, fmt.Errorf("read bundle: this is no program file: %w", protocol.ErrMalformed)
	}
	o, err := protocol.DecodeOffer(rest)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	b := &Bundle{Offer: o, Object: rest[protocol.OfferSize:]}
	if err := CheckObject(&o, b.Object); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return b, nil
}

// Read reads a file from disk.
func Read(path string) (*Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	defer f.Close()
	p, err := io.ReadAll(io.LimitReader(f, int64(MaxSize)+1))
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return Decode(p)
}

// CheckObject returns an error that wraps [ErrDigest] unless the object is the one of the
// offer.
func CheckObject(o *protocol.Offer, object []byte) error {
	if uint64(len(object)) != uint64(o.Size) {
		return fmt.Errorf("%d bytes instead of %d: %w", len(object), o.Size, ErrDigest)
	}
	if got := protocol.Digest(sha256.Sum256(object)); got != o.Digest {
		return fmt.Errorf("digest %v instead of %v: %w", got, o.Digest, ErrDigest)
	}
	return nil
}
