// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

// generateKernelKey makes a key that signs for the kernel, and its certificate.
func generateKernelKey(name string, now time.Time) error {
	private, certificate, err := kernelsig.GenerateKey(filepath.Base(name), now)
	if err != nil {
		return err
	}
	return writePair(name, private, ".crt", certificate)
}

// kernelSigning is the part of sign's command line that is about the kernel's signature.
type kernelSigning struct{ key, certificate string }

func (k *kernelSigning) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&k.key, "kernel-key", "",
		"also sign for the guest's kernel, with the private key in `FILE`")
	fs.StringVar(&k.certificate, "kernel-cert", "", "certificate of --kernel-key, in `FILE`")
}

// sign returns the object with a signature for the kernel, if one is asked for. One that it has
// already stays otherwise.
func (k *kernelSigning) sign(object []byte) ([]byte, error) {
	switch {
	case k.key == "" && k.certificate == "":
		_, _, err := kernelsig.Split(object) // guests refuse one that is cut off
		return object, err
	case k.key == "" || k.certificate == "":
		return nil, cli.Usagef("give both --kernel-key and --kernel-cert")
	}
	key, err := os.ReadFile(k.key)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	certificate, err := kernelsig.ReadCertificate(k.certificate)
	if err != nil {
		return nil, err
	}
	signer, err := kernelsig.NewSigner(key, certificate)
	if err != nil {
		return nil, err
	}
	file, _, err := kernelsig.Split(object)
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	installer, err := kernelsig.ReadInstaller(file)
	if err != nil {
		return nil, err
	}
	signature, err := signer.Sign(installer)
	if err != nil {
		return nil, err
	}
	return kernelsig.Append(object, signature)
}

// hasKernelSignature says whether an object has one, of whomever. It fails where one is cut off:
// guests refuse such an object.
func hasKernelSignature(object []byte) (bool, error) {
	_, signature, err := kernelsig.Split(object)
	return signature != nil, err
}

// checkKernelSignature returns nil if the key of the certificate in a file signed the
// installer of its program.
func checkKernelSignature(object []byte, path string) error {
	certificate, err := kernelsig.ReadCertificate(path)
	if err != nil {
		return err
	}
	file, signature, err := kernelsig.Split(object)
	if err != nil {
		return err
	}
	if signature == nil {
		return errors.New("check the signature for the kernel: it has none")
	}
	installer, err := kernelsig.ReadInstaller(file)
	if err != nil {
		return err
	}
	return kernelsig.Verify(installer, signature, certificate)
}
