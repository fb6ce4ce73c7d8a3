// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Digest is the SHA-256 of a program's object.
type Digest [32]byte

// String implements fmt.Stringer.
func (d Digest) String() string { return fmt.Sprintf("%x", d[:]) }

// ProgramKind tells what a program is for, and with it which contract it keeps.
type ProgramKind uint32

// The kinds. driver-ebpf/README.md has their contracts.
const (
	KindWalk    ProgramKind = 1 // a walk over the free lists
	KindCensus  ProgramKind = 2 // what the guest uses its memory for
	KindSampler ProgramKind = 3 // which of its memory it has used lately
)

// Kinds returns all kinds.
func Kinds() []ProgramKind { return []ProgramKind{KindWalk, KindCensus, KindSampler} }

// maxKind is the highest kind that fits in the mask of ACCEPTS.
const maxKind = 31

// String implements fmt.Stringer.
func (k ProgramKind) String() string {
	switch k {
	case KindWalk:
		return "walk"
	case KindCensus:
		return "census"
	case KindSampler:
		return "sampler"
	}
	return fmt.Sprintf("kind(%d)", uint32(k))
}

// Set implements pflag.Value.
func (k *ProgramKind) Set(text string) error {
	for _, kind := range Kinds() {
		if kind.String() == text {
			*k = kind
			return nil
		}
	}
	return fmt.Errorf("unknown kind %q", text)
}

// Type implements pflag.Value.
func (ProgramKind) Type() string { return "kind" }

// Mask returns the kind's bit in the mask of ACCEPTS.
func (k ProgramKind) Mask() uint32 {
	if k > maxKind {
		return 0
	}
	return 1 << k
}

// Bounds of programs in bytes.
const (
	MaxProgramSize = 1 << 20 // of an object
	MaxProgramName = 32

	// MinProgramBuffer is what each event buffer of a driver that takes programs has at
	// least [FBPP-PROG-1].
	MinProgramBuffer = 512
)

// OfferSize is the length of an encoded Offer in bytes. The last SignatureSize of them
// are the signature.
const (
	OfferSize     = 192
	SignatureSize = 64
)

// Offer describes a program: what the owner of a key signed (section 9.1). It is the body
// of an OFFER, and the head of a program file.
type Offer struct {
	Digest    Digest
	Kind      ProgramKind
	Size      uint32 // of the object, in bytes
	Version   uint64
	Expires   time.Time // to the second; zero: never, which only an unsigned one may say
	Nonce     uint64    // the only session that may take it; 0: any
	VM        [16]byte  // the only VM that may take it; all 0: any
	KeyID     [8]byte   // says which key signed; a hint
	Name      string
	Signature [SignatureSize]byte // all 0: not signed
}

// offsets in an encoded Offer
const (
	offerKind    = 32
	offerSize    = 36
	offerVersion = 40
	offerExpires = 48
	offerNonce   = 56
	offerVM      = 64
	offerKeyID   = 80
	offerReserve = 88
	offerName    = 96
	offerSigned  = OfferSize - SignatureSize
)

// Encode writes the offer into p, which has at least OfferSize bytes. A name that is too
// long is cut.
func (o *Offer) Encode(p []byte) {
	p = p[:OfferSize]
	clear(p)
	le := binary.LittleEndian
	copy(p, o.Digest[:])
	le.PutUint32(p[offerKind:], uint32(o.Kind))
	le.PutUint32(p[offerSize:], o.Size)
	le.PutUint64(p[offerVersion:], o.Version)
	if !o.Expires.IsZero() {
		le.PutUint64(p[offerExpires:], uint64(o.Expires.Unix()))
	}
	le.PutUint64(p[offerNonce:], o.Nonce)
	copy(p[offerVM:], o.VM[:])
	copy(p[offerKeyID:], o.KeyID[:])
	copy(p[offerName:offerSigned], o.Name)
	copy(p[offerSigned:], o.Signature[:])
}

// latest bounds the time of expiry: the year 9999, so that it can be printed.
const latest = 253402300799

// DecodeOffer reads and checks an offer. One offer has one encoding only.
func DecodeOffer(p []byte) (Offer, error) {
	if len(p) < OfferSize {
		return Offer{}, fmt.Errorf("decode offer: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	o := Offer{
		Digest:    Digest(p),
		Kind:      ProgramKind(le.Uint32(p[offerKind:])),
		Size:      le.Uint32(p[offerSize:]),
		Version:   le.Uint64(p[offerVersion:]),
		Nonce:     le.Uint64(p[offerNonce:]),
		VM:        [16]byte(p[offerVM:]),
		KeyID:     [8]byte(p[offerKeyID:]),
		Name:      Printable(p[offerName:offerSigned]),
		Signature: [SignatureSize]byte(p[offerSigned:]),
	}
	expires := le.Uint64(p[offerExpires:])
	if expires != 0 {
		o.Expires = time.Unix(int64(min(expires, latest)), 0).UTC()
	}
	switch {
	case le.Uint64(p[offerReserve:]) != 0:
		return o, fmt.Errorf("decode offer: reserved field is not 0: %w", ErrMalformed)
	case o.Kind == 0 || o.Kind > maxKind:
		return o, fmt.Errorf("decode offer: kind %d: %w", o.Kind, ErrMalformed)
	case o.Size == 0 || o.Size > MaxProgramSize:
		return o, fmt.Errorf("decode offer: object of %d bytes: %w", o.Size, ErrMalformed)
	case expires > latest:
		return o, fmt.Errorf("decode offer: it expires after the year 9999: %w", ErrMalformed)
	case o.Name == "":
		return o, fmt.Errorf("decode offer: no name: %w", ErrMalformed)
	}
	var name [MaxProgramName]byte
	copy(name[:], o.Name)
	if string(name[:]) != string(p[offerName:offerSigned]) {
		return o, fmt.Errorf("decode offer: name %q is not printable, or not padded with 0: %w",
			o.Name, ErrMalformed)
	}
	return o, nil
}

// Signed says whether there is a signature, which may be wrong.
func (o *Offer) Signed() bool { return o.Signature != [SignatureSize]byte{} }

// Accepts is the body of ACCEPTS: which programs the driver takes (section 9).
type Accepts struct {
	Kinds   uint32 // mask of kinds
	MaxSize uint32 // of an object, in bytes
}

// AcceptsSize is the length of the body of ACCEPTS in bytes.
const AcceptsSize = 16

// Encode writes the body into p, which has at least AcceptsSize bytes.
func (a *Accepts) Encode(p []byte) {
	p = p[:AcceptsSize]
	clear(p)
	binary.LittleEndian.PutUint32(p, a.Kinds)
	binary.LittleEndian.PutUint32(p[4:], a.MaxSize)
}

// DecodeAccepts reads the body of ACCEPTS.
func DecodeAccepts(p []byte) (Accepts, error) {
	if len(p) < AcceptsSize || binary.LittleEndian.Uint64(p[8:]) != 0 {
		return Accepts{}, fmt.Errorf("decode accepts: %d bytes, or a reserved field is not 0: %w",
			len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	return Accepts{Kinds: le.Uint32(p), MaxSize: le.Uint32(p[4:])}, nil
}

// Get is the body of GET: which part of an object the driver wants.
type Get struct {
	Digest Digest
	Offset uint32
	Length uint32
}

// GetSize is the length of the body of GET in bytes.
const GetSize = 48

// Encode writes the body into p, which has at least GetSize bytes.
func (g *Get) Encode(p []byte) {
	p = p[:GetSize]
	clear(p)
	copy(p, g.Digest[:])
	binary.LittleEndian.PutUint32(p[32:], g.Offset)
	binary.LittleEndian.PutUint32(p[36:], g.Length)
}

// DecodeGet reads and checks the body of GET.
func DecodeGet(p []byte) (Get, error) {
	if len(p) < GetSize {
		return Get{}, fmt.Errorf("decode get: %d bytes: %w", len(p), ErrMalformed)
	}
	le := binary.LittleEndian
	g := Get{Digest: Digest(p), Offset: le.Uint32(p[32:]), Length: le.Uint32(p[36:])}
	end := uint64(g.Offset) + uint64(g.Length)
	if g.Length == 0 || end > MaxProgramSize || le.Uint64(p[40:]) != 0 {
		return g, fmt.Errorf("decode get: %d bytes from %d: %w", g.Length, g.Offset, ErrMalformed)
	}
	return g, nil
}
