// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
)

var object = []byte("\x7fELF and so on")

func mustBundle(t testing.TB) *Bundle {
	t.Helper()
	b, err := New(protocol.Offer{
		Kind: protocol.KindWalk, Version: 3, Name: "walk", Nonce: 4, VM: [16]byte{1},
		Expires: time.Unix(1_800_000_000, 0).UTC(),
	}, object)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestFileRoundTrips(t *testing.T) {
	b := mustBundle(t)
	if err := Sign(&b.Offer, mustKey(t)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "walk.fbpp")
	if err := os.WriteFile(path, b.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if diff := cmp.Diff(b, got); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}
}

func TestFileIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p []byte) []byte
		want   error
	}{
		"nothing":            {func([]byte) []byte { return nil }, protocol.ErrMalformed},
		"an ELF file":        {func([]byte) []byte { return object }, protocol.ErrMalformed},
		"a head alone":       {func(p []byte) []byte { return p[:20] }, protocol.ErrMalformed},
		"a file that is cut": {func(p []byte) []byte { return p[:len(p)-1] }, ErrDigest},
		"a byte too many":    {func(p []byte) []byte { return append(p, 0) }, ErrDigest},
		"another object":     {func(p []byte) []byte { p[len(p)-1]++; return p }, ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := Decode(c.change(mustBundle(t).Encode())); !errors.Is(err, c.want) {
				t.Fatalf("got %v, %v; want %v", b, err, c.want)
			}
		})
	}
	if _, err := New(protocol.Offer{Kind: protocol.KindWalk, Name: "a\nb"}, object); err == nil {
		t.Error("a name of two lines was taken")
	}
}

// Whatever is changed in an offer, the signature is not one of it any more.
func TestSignatureCoversEveryByte(t *testing.T) {
	b, key := mustBundle(t), mustKey(t)
	public := key.Public().(ed25519.PublicKey)
	if err := Verify(&b.Offer, public); !errors.Is(err, ErrUnsigned) {
		t.Fatalf("an unsigned offer: %v", err)
	}
	if err := Sign(&b.Offer, key); err != nil {
		t.Fatal(err)
	}
	if err := Verify(&b.Offer, public); err != nil {
		t.Fatal(err)
	}
	other := mustKey(t).Public().(ed25519.PublicKey)
	if err := Verify(&b.Offer, other); !errors.Is(err, ErrSignature) {
		t.Fatalf("with another key: %v", err)
	}
	var p [protocol.OfferSize]byte
	b.Offer.Encode(p[:])
	tried := 0
	for i := range p {
		p[i] ^= 1
		if o, err := protocol.DecodeOffer(p[:]); err == nil {
			tried++
			if err := Verify(&o, public); !errors.Is(err, ErrSignature) {
				t.Fatalf("byte %d is changed: %v", i, err)
			}
		}
		p[i] ^= 1
	}
	if tried < 140 {
		t.Fatalf("only %d changes gave an offer", tried)
	}
}

// A signature over the same bytes for another purpose is none of an offer.
func TestSignatureIsBoundToItsPurpose(t *testing.T) {
	b, key := mustBundle(t), mustKey(t)
	b.Offer.KeyID = KeyID(key.Public().(ed25519.PublicKey))
	var p [protocol.OfferSize]byte
	b.Offer.Encode(p[:])
	b.Offer.Signature = [64]byte(ed25519.Sign(key, p[:protocol.OfferSize-protocol.SignatureSize]))
	if err := Verify(&b.Offer, key.Public().(ed25519.PublicKey)); !errors.Is(err, ErrSignature) {
		t.Fatal(err)
	}
}

func TestSignatureHasToExpire(t *testing.T) {
	b := mustBundle(t)
	b.Offer.Expires = time.Time{}
	if err := Sign(&b.Offer, mustKey(t)); err == nil {
		t.Fatal("signed for ever")
	}
}

func TestKeysAreReadBack(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, public, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	priv, err := ReadPrivateKey(write("private.pem", private))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ReadPublicKey(write("public.pem", public))
	if err != nil || !pub.Equal(priv.Public()) {
		t.Fatalf("the keys are no pair: %v", err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	ec := pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: der})
	for name, text := range map[string][]byte{
		"no PEM": []byte("hello"), "a private key": private, "a key of another kind": ec,
		"two keys":          append(slices.Clone(public), public...),
		"a key that is cut": pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: der[:9]}),
	} {
		if _, err := ReadPublicKey(write("bad.pem", text)); err == nil {
			t.Errorf("%s was taken for a public key", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(mustBundle(f).Encode())
	f.Add([]byte(Magic))
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := Decode(p)
		if err == nil && !bytes.Equal(b.Encode(), p) {
			t.Fatalf("%+v has another encoding", b.Offer)
		}
	})
}
