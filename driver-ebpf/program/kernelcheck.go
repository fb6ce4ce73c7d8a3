// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

// ErrKernelSignature says that a policy wants the kernel to check a signature, and it cannot.
var ErrKernelSignature = errors.New("the policy requires a signature that the kernel checks")

// maxCertificate is the largest file with a certificate, in bytes.
const maxCertificate = 16 << 10

// KernelCheck is what a policy wants of the kernel's own check of signatures.
type KernelCheck struct {
	Required     bool
	Certificates []kernelsig.Certificate
}

// KernelCheck reads the certificates, *.crt in KeyDir. As with keys, one that was removed counts
// no more. With an error it has those that could be read.
func (p *Policy) KernelCheck() (KernelCheck, error) {
	k := KernelCheck{Required: p.RequireKernelSignature}
	if p.KeyDir == "" {
		return k, nil
	}
	names, err := listTrusted(p.KeyDir, ".crt", maxKeys)
	if err != nil {
		return k, fmt.Errorf("read certificates: %w", err)
	}
	var errs []error
	for _, name := range names {
		text, err := readTrusted(name, maxCertificate)
		if err != nil {
			errs = append(errs, fmt.Errorf("read certificates: %w", err))
			continue
		}
		c, err := kernelsig.ParseCertificate(filepath.Base(name), text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		k.Certificates = append(k.Certificates, c)
	}
	return k, errors.Join(errs...)
}

// wants says whether the kernel is to check the signature of an object, which may be nil. An owner
// without certificates, who requires nothing, has not asked for it.
func (k *KernelCheck) wants(signature []byte, supported func() error) (bool, error) {
	switch {
	case k.Required && signature == nil:
		return false, fmt.Errorf("the object has none: %w", ErrKernelSignature)
	case !k.Required && (signature == nil || len(k.Certificates) == 0):
		return false, nil
	}
	err := supported()
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, kernelsig.ErrUnsupported):
		return false, err
	case k.Required:
		return false, fmt.Errorf("%w: %w", ErrKernelSignature, err)
	}
	return false, nil // as an agent does that knows of no such signatures
}

// loadChecked has the kernel check the signature. Package ebpf makes the maps, as it does without.
func (k *KernelCheck) loadChecked(
	file, signature []byte, spec *ebpf.CollectionSpec, name string, opts ebpf.CollectionOptions,
) (*ebpf.Program, error) {
	installer, err := kernelsig.NewInstaller(file, spec.Programs[name])
	if err != nil {
		return nil, err
	}
	maps := spec.Copy()
	maps.Programs = nil
	c, err := ebpf.NewCollectionWithOptions(maps, opts)
	if err != nil {
		return nil, fmt.Errorf("make the program's maps: %w", err)
	}
	defer c.Close() // the program keeps them
	prog, err := kernelsig.Load(&kernelsig.Program{
		Installer: installer, Maps: c.Maps, Signature: signature, Certificates: k.Certificates,
	})
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return prog, nil
}
