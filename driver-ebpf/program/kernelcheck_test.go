// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

func mustCertificate(t *testing.T) string {
	t.Helper()
	_, text, err := kernelsig.GenerateKey("owner", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCertificatesAreReadForEachProgram(t *testing.T) {
	dir := t.TempDir()
	p := &Policy{KeyDir: dir, RequireKernelSignature: true}
	check := func(want int) {
		t.Helper()
		k, err := p.KernelCheck()
		if err != nil || !k.Required || len(k.Certificates) != want {
			t.Fatalf("got %+v, %v, want %d certificates", k, err, want)
		}
	}
	check(0)
	path := filepath.Join(dir, "owner.crt")
	if err := os.WriteFile(path, []byte(mustCertificate(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "owner.pem"), []byte("a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(1)
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := p.KernelCheck(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a certificate that all may write: %v, want ErrUnsafe", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check(0)
	if err := os.WriteFile(path, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.KernelCheck(); err == nil || !strings.Contains(err.Error(), "owner.crt") {
		t.Errorf("a file that is no certificate: %v", err)
	}
	other := filepath.Join(dir, "next.crt")
	if err := os.WriteFile(other, []byte(mustCertificate(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if k, err := p.KernelCheck(); err == nil || len(k.Certificates) != 1 {
		t.Errorf("beside it there are %d certificates: %v", len(k.Certificates), err)
	}
	if k, err := new(Policy).KernelCheck(); err != nil || k.Required || k.Certificates != nil {
		t.Errorf("without a folder: %+v, %v", k, err)
	}
}

// The kernel is asked where the owner has a certificate and the object a signature. What a policy
// requires is refused where the kernel cannot check it.
func TestWhenTheKernelIsAsked(t *testing.T) {
	signature, one := []byte("signature"), []kernelsig.Certificate{{Name: "owner.crt"}}
	able := func() error { return nil }
	older := func() error { return kernelsig.ErrUnsupported }
	broken := errors.New("no permission")
	unclear := func() error { return broken }
	for name, c := range map[string]struct {
		check     KernelCheck
		signature []byte
		supported func() error
		want      bool
		err       error
	}{
		"all there":            {KernelCheck{false, one}, signature, able, true, nil},
		"required":             {KernelCheck{true, one}, signature, able, true, nil},
		"required, no key":     {KernelCheck{true, nil}, signature, able, true, nil},
		"no signature":         {KernelCheck{false, one}, nil, able, false, nil},
		"no key":               {KernelCheck{false, nil}, signature, able, false, nil},
		"an older kernel":      {KernelCheck{false, one}, signature, older, false, nil},
		"required of an older": {KernelCheck{true, one}, signature, older, false, ErrKernelSignature},
		"required, none there": {KernelCheck{true, one}, nil, able, false, ErrKernelSignature},
		"not known if it can":  {KernelCheck{false, one}, signature, unclear, false, broken},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.check.wants(c.signature, c.supported)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %t, %v, want %t, %v", got, err, c.want, c.err)
			}
		})
	}
}

func TestChildRefusesWhatThePolicyRequiresSigned(t *testing.T) {
	object := mustObject(t)
	l := &Loader{Limits: defaultLimits(t), KernelCheck: func() (KernelCheck, error) {
		return KernelCheck{Required: true}, nil
	}}
	_, err := l.Load(t.Context(), mustOffer(t, object), object)
	if refused := new(refusedError); !errors.As(err, &refused) ||
		!strings.Contains(err.Error(), ErrKernelSignature.Error()) {
		t.Errorf("got %v, want %v", err, ErrKernelSignature)
	}
	broken := errors.New("a file is no certificate")
	for _, required := range []bool{true, false} {
		l.KernelCheck = func() (KernelCheck, error) { return KernelCheck{Required: required}, broken }
		prog, err := l.Load(t.Context(), mustOffer(t, object), object)
		if err == nil {
			prog.Close()
		}
		if errors.Is(err, broken) != required {
			t.Errorf("required %v: %v", required, err)
		}
	}
}

// A signature for the kernel is no obstacle where nobody asks for it.
func TestSignatureThatNobodyAsksFor(t *testing.T) {
	object, err := kernelsig.Append(mustObject(t), []byte("signature"))
	if err != nil {
		t.Fatal(err)
	}
	l := &Loader{Limits: mustPolicy(t, `{"limits": {"instructions": 9}}`).Limits}
	_, err = l.Load(t.Context(), mustOffer(t, object), object)
	if err == nil || !strings.Contains(err.Error(), "instructions, at most 9") {
		t.Errorf("got %v, want that of the object", err)
	}
	object = append([]byte("\x7fELF\x00\x00\x00\x00"), object[len(object)-24:]...)
	_, err = l.Load(t.Context(), mustOffer(t, object), object)
	if err == nil || !strings.Contains(err.Error(), kernelsig.ErrTrailer.Error()) {
		t.Errorf("got %v, want %v", err, kernelsig.ErrTrailer)
	}
}
