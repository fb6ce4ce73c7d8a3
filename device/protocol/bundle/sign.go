// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// domain begins what is signed. So no signature that a key made for another purpose is one
// of an offer.
const domain = "fbpp program signature, version 1\x00"

// Errors of signatures that callers tell apart.
var (
	ErrUnsigned  = errors.New("it is not signed")
	ErrSignature = errors.New("the signature is wrong")
)

// Types of PEM blocks, as openssl writes them.
const (
	pemPrivate = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
)

// signed returns what the signature of an offer is about: all of it but the signature.
func signed(o *protocol.Offer) []byte {
	var p [protocol.OfferSize]byte
	o.Encode(p[:])
	return append([]byte(domain), p[:protocol.OfferSize-protocol.SignatureSize]...)
}

// KeyID returns the name of a key: the beginning of the SHA-256 of its 32 bytes.
func KeyID(key ed25519.PublicKey) [8]byte {
	sum := sha256.Sum256(key)
	return [8]byte(sum[:])
}

// Sign signs an offer. It has to expire.
func Sign(o *protocol.Offer, key ed25519.PrivateKey) error {
	if o.Expires.IsZero() {
		return errors.New("sign: a signature has to expire")
	}
	o.KeyID = KeyID(key.Public().(ed25519.PublicKey))
	o.Signature = [protocol.SignatureSize]byte(ed25519.Sign(key, signed(o)))
	return nil
}

// Verify returns nil if the key signed the offer, and an error that wraps [ErrUnsigned] or
// [ErrSignature] if not. It does not look at the time.
func Verify(o *protocol.Offer, key ed25519.PublicKey) error {
	switch {
	case !o.Signed():
		return ErrUnsigned
	case o.Expires.IsZero(), !ed25519.Verify(key, signed(o), o.Signature[:]):
		return ErrSignature
	}
	return nil
}

// GenerateKey returns a new pair of keys as PEM, which openssl reads, too.
func GenerateKey() (private, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	privDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	pubDER, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	private = pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: privDER})
	return private, pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: pubDER}), nil
}

// ReadPrivateKey reads a private key from a PEM file.
func ReadPrivateKey(path string) (ed25519.PrivateKey, error) {
	return readKey[ed25519.PrivateKey](path, pemPrivate, x509.ParsePKCS8PrivateKey)
}

// ReadPublicKey reads a public key from a PEM file.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	return readKey[ed25519.PublicKey](path, pemPublic, x509.ParsePKIXPublicKey)
}

// ParsePublicKey parses the text of a PEM file with a public key. The path is for errors.
func ParsePublicKey(path string, text []byte) (ed25519.PublicKey, error) {
	return parseKey[ed25519.PublicKey](path, text, pemPublic, x509.ParsePKIXPublicKey)
}

func readKey[K any](path, kind string, parse func([]byte) (any, error)) (key K, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return key, fmt.Errorf("read key: %w", err)
	}
	return parseKey[K](path, text, kind, parse)
}

func parseKey[K any](
	path string, text []byte, kind string, parse func([]byte) (any, error),
) (key K, err error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind {
		return key, fmt.Errorf("read key %s: it has no PEM block %q", path, kind)
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return key, fmt.Errorf("read key %s: something follows the key, which would not count", path)
	}
	parsed, err := parse(block.Bytes)
	if err != nil {
		return key, fmt.Errorf("read key %s: %w", path, err)
	}
	key, ok := parsed.(K)
	if !ok {
		return key, fmt.Errorf("read key %s: it is of another kind than ed25519", path)
	}
	return key, nil
}
