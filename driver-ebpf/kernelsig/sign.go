// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// Sign returns a signature of an installer as the kernel takes it: PKCS#7, detached, and without
// attributes that would be signed in its place.
func (s *Signer) Sign(in *Installer) ([]byte, error) {
	data, err := pkcs7.NewSignedData(in.Bytes)
	if err != nil {
		return nil, fmt.Errorf("sign for the kernel: %w", err)
	}
	data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if _, ok := s.key.Public().(*rsa.PublicKey); ok { // the kernel wants the name without a hash
		data.SetEncryptionAlgorithm(pkcs7.OIDEncryptionAlgorithmRSA)
	}
	if err := data.SignWithoutAttr(s.certificate, s.key, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("sign for the kernel: %w", err)
	}
	data.Detach()
	signature, err := data.Finish()
	if err != nil {
		return nil, fmt.Errorf("sign for the kernel: %w", err)
	}
	return signature, nil
}

// Verify returns nil if the key of the certificate signed the installer, in the form that the
// kernel takes. The error wraps [ErrUnknown] or [ErrRejected] where it can tell.
func Verify(in *Installer, signature []byte, by Certificate) (err error) {
	defer func() { // the parser of PKCS#7 is not ours
		if r := recover(); r != nil {
			err = fmt.Errorf("read the signature for the kernel: %v", r)
		}
	}()
	p, err := pkcs7.Parse(signature)
	if err != nil {
		return fmt.Errorf("read the signature for the kernel: %w", err)
	}
	cert := p.GetOnlySigner()
	if cert == nil {
		return errors.New("read the signature for the kernel: it is not by one key")
	}
	if !bytes.Equal(cert.Raw, by.DER) {
		return fmt.Errorf("%w: it is by %q", ErrUnknown, cert.Subject)
	}
	if len(p.Content) != 0 || len(p.Signers[0].AuthenticatedAttributes) != 0 {
		return fmt.Errorf("%w: it has contents or attributes of its own", ErrRejected)
	}
	of := p.Signers[0].DigestEncryptionAlgorithm.Algorithm
	if cert.PublicKeyAlgorithm == x509.RSA && !of.Equal(pkcs7.OIDEncryptionAlgorithmRSA) {
		return fmt.Errorf("%w: its algorithm is %v, and the kernel wants %v", ErrRejected, of,
			pkcs7.OIDEncryptionAlgorithmRSA)
	}
	p.Content = in.Bytes
	if err := p.Verify(); err != nil {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return nil
}

// parse returns the certificate for the library.
func (c Certificate) parse() (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", c.Name, err)
	}
	return cert, nil
}
