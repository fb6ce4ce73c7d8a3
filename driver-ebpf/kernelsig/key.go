// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Types of PEM blocks, as openssl writes them.
const (
	pemPrivate     = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
)

// keyBits is the size of a key that GenerateKey makes. The kernel has RSA built in, for its
// modules. Other kinds may be modules, which a guest need not have.
const keyBits = 3072

// keyLife is how long such a certificate says it is valid. The kernel does not look at that.
const keyLife = 20 * 365 * 24 * time.Hour

// Certificate is one that a guest's owner trusts.
type Certificate struct {
	Name string // for errors
	DER  []byte // X.509
}

// Signer signs for the kernel.
type Signer struct {
	key         crypto.Signer
	certificate *x509.Certificate
}

// NewSigner returns a signer with a private key, as the text of a PEM file, and its certificate.
func NewSigner(key []byte, certificate Certificate) (*Signer, error) {
	block, err := onlyBlock(key, pemPrivate)
	if err != nil {
		return nil, fmt.Errorf("read the key for the kernel: %w", err)
	}
	private, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("read the key for the kernel: %w", err)
	}
	cert, err := certificate.parse()
	if err != nil {
		return nil, err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("read the key for the kernel: it cannot sign")
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("the certificate for the kernel is not that of the key")
	}
	return &Signer{signer, cert}, nil
}

// ReadCertificate reads a certificate from a PEM file.
func ReadCertificate(path string) (Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Certificate{}, fmt.Errorf("read certificate: %w", err)
	}
	return ParseCertificate(path, text)
}

// ParseCertificate parses the text of a PEM file.
func ParseCertificate(name string, text []byte) (Certificate, error) {
	block, err := onlyBlock(text, pemCertificate)
	if err != nil {
		return Certificate{}, fmt.Errorf("read certificate %s: %w", name, err)
	}
	c := Certificate{name, block}
	_, err = c.parse()
	return c, err
}

func onlyBlock(text []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil || block.Type != kind:
		return nil, fmt.Errorf("it has no PEM block %q", kind)
	case len(bytes.TrimSpace(rest)) != 0:
		return nil, errors.New("something follows, which would not count")
	}
	return block.Bytes, nil
}

// GenerateKey returns a new private key and its certificate as PEM, which openssl reads, too.
func GenerateKey(name string, now time.Time) (private, certificate []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	form := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now, NotAfter: now.Add(keyLife),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: secret}),
		pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}), nil
}
