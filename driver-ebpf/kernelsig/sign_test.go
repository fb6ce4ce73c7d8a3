// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
)

func mustSigner(t *testing.T) (*Signer, Certificate) {
	t.Helper()
	private, text, err := GenerateKey("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, private, text)
}

func mustParse(t *testing.T, private, text []byte) (*Signer, Certificate) {
	t.Helper()
	certificate, err := ParseCertificate("test", text)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(private, certificate)
	if err != nil {
		t.Fatal(err)
	}
	return signer, certificate
}

// mustElliptic returns an owner's own key, of another kind than GenerateKey makes.
func mustElliptic(t *testing.T) (*Signer, Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert}))
}

func TestSignatureIsChecked(t *testing.T) {
	in := mustInstaller(t, mustFile(t, censusObject))
	signer, by := mustSigner(t)
	own, byOwn := mustElliptic(t)
	for _, c := range []struct {
		signer *Signer
		by     Certificate
	}{{signer, by}, {own, byOwn}} {
		signature, err := c.signer.Sign(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := Verify(in, signature, c.by); err != nil {
			t.Error(err)
		}
		if len(signature) > maxSignature {
			t.Errorf("the signature has %d bytes", len(signature))
		}
		other := &Installer{Bytes: append(bytes.Clone(in.Bytes), 0)}
		if err := Verify(other, signature, c.by); !errors.Is(err, ErrRejected) {
			t.Errorf("of something else: %v, want ErrRejected", err)
		}
		p, err := pkcs7.Parse(signature)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Content) != 0 || len(p.Signers) != 1 ||
			len(p.Signers[0].AuthenticatedAttributes) != 0 {
			t.Errorf("the kernel does not take %d bytes of content, or %+v", len(p.Content), p.Signers)
		}
	}
	signature, err := signer.Sign(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(in, signature, byOwn); !errors.Is(err, ErrUnknown) {
		t.Errorf("by another: %v, want ErrUnknown", err)
	}
	if err := Verify(in, []byte("none"), by); err == nil {
		t.Error("no PKCS#7 was taken")
	}
}

func TestFilesOfKeysThatAreNotTaken(t *testing.T) {
	private, text, err := GenerateKey("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, another := mustElliptic(t)
	if _, err := NewSigner(private, another); err == nil ||
		!strings.Contains(err.Error(), "not that of the key") {
		t.Errorf("a key and the certificate of another: %v", err)
	}
	if _, err := NewSigner(text, another); err == nil {
		t.Error("a certificate was taken for a key")
	}
	for name, text := range map[string]string{
		"a key": string(private), "nothing": "", "two": string(text) + string(text),
		"no certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		if _, err := ParseCertificate("f.crt", []byte(text)); err == nil ||
			!strings.Contains(err.Error(), "f.crt") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signature comes in a file from anywhere.
func FuzzVerify(f *testing.F) {
	private, text, err := GenerateKey("test", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	certificate, err := ParseCertificate("test", text)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := NewSigner(private, certificate)
	if err != nil {
		f.Fatal(err)
	}
	in := &Installer{Bytes: []byte("12345678")}
	signature, err := signer.Sign(in)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signature)
	f.Add(signature[:len(signature)/2])
	f.Fuzz(func(t *testing.T, p []byte) {
		other := &Installer{Bytes: []byte("87654321")}
		if Verify(in, p, certificate) == nil && Verify(other, p, certificate) == nil {
			t.Error("one signature is good for two programs")
		}
	})
}
