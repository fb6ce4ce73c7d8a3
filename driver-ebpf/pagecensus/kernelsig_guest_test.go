// SPDX-License-Identifier: Apache-2.0

//go:build guest

package pagecensus

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

// linux6_18 is the first version that checks signatures, as LINUX_VERSION_CODE.
const linux6_18 = 6<<16 | 18<<8

func mustSigner(t *testing.T) (*kernelsig.Signer, kernelsig.Certificate) {
	t.Helper()
	private, text, err := kernelsig.GenerateKey("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := kernelsig.ParseCertificate("test", text)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := kernelsig.NewSigner(private, certificate)
	if err != nil {
		t.Fatal(err)
	}
	return signer, certificate
}

// mustSigned returns the census with a signature.
func mustSigned(t *testing.T, by *kernelsig.Signer) *kernelsig.Program {
	t.Helper()
	spec, err := loadCensus()
	if err != nil {
		t.Fatal(err)
	}
	p := &kernelsig.Program{Maps: make(map[string]*ebpf.Map)}
	p.Installer, err = kernelsig.NewInstaller(_CensusBytes, spec.Programs[censusProgCountPages])
	if err != nil {
		t.Fatal(err)
	}
	if p.Signature, err = by.Sign(p.Installer); err != nil {
		t.Fatal(err)
	}
	for _, name := range p.Installer.Maps {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		p.Maps[name] = m
	}
	return p
}

// The kernel takes what the owner's key signed, and nothing else. Older ones say that they check
// nothing.
func TestKernelChecksTheSignature(t *testing.T) {
	version, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	supported := kernelsig.Supported()
	if version < linux6_18 {
		if !errors.Is(supported, kernelsig.ErrUnsupported) {
			t.Fatalf("got %v, want ErrUnsupported", supported)
		}
		return
	}
	if supported != nil {
		t.Fatal(supported)
	}
	signer, certificate := mustSigner(t)
	stranger, another := mustSigner(t)
	for name, c := range map[string]struct {
		signer *kernelsig.Signer
		trusts []kernelsig.Certificate
		change func(p *kernelsig.Program)
		want   error
	}{
		"signed":        {signer, []kernelsig.Certificate{another, certificate}, nil, nil},
		"by a stranger": {stranger, []kernelsig.Certificate{certificate}, nil, kernelsig.ErrUnknown},
		"altered": {signer, []kernelsig.Certificate{certificate}, func(p *kernelsig.Program) {
			p.Installer.Bytes[len(p.Installer.Bytes)-4]++
		}, kernelsig.ErrRejected},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustSigned(t, c.signer)
			p.Certificates = c.trusts
			if c.change != nil {
				c.change(p)
			}
			prog, err := kernelsig.Load(p)
			if err == nil {
				defer prog.Close()
			}
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
}
