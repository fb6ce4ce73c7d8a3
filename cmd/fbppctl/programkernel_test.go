// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
)

func TestProgramIsSignedForTheKernel(t *testing.T) {
	object, err := filepath.Abs("../../driver-ebpf/freepages/walk_x86_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	mustRun(t, "program", "keygen", "owner")
	mustRun(t, "program", "keygen", "kernel", "--kernel")
	mustRun(t, "program", "keygen", "other", "--kernel")
	for file, mode := range map[string]os.FileMode{"kernel.key": 0o600, "kernel.crt": 0o644} {
		if info, err := os.Stat(file); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	sign := []string{"program", "sign", object, "--name=walk", "--key=owner.key"}
	verify := []string{"program", "verify", "walk.fbpp", "--key=owner.pem"}
	fails := func(args ...string) error {
		t.Helper()
		err := run(t.Context(), args, new(strings.Builder))
		if err == nil {
			t.Fatalf("fbppctl %s did not fail", strings.Join(args, " "))
		}
		return err
	}

	mustRun(t, sign...)
	if said := mustRun(t, verify...); strings.Contains(said, "kernel") {
		t.Errorf("verify says of a file without: %s", said)
	}
	fails(append(verify, "--kernel-cert=kernel.crt")...)

	sign = append(sign, "--kernel-key=kernel.key")
	if err := fails(sign...); !errors.As(err, new(cli.UsageError)) {
		t.Errorf("a key without its certificate: %v", err)
	}
	fails(append(sign, "--kernel-cert=other.crt")...)
	mustRun(t, append(sign, "--kernel-cert=kernel.crt")...)
	if said := mustRun(t, verify...); !strings.Contains(said, "for the kernel, not verified") {
		t.Errorf("verify says %s", said)
	}
	var file programFile
	said := mustRun(t, append(verify, "--kernel-cert=kernel.crt", "--json")...)
	if err := json.Unmarshal([]byte(said), &file); err != nil || !file.KernelSigned ||
		!file.KernelVerified || !file.Verified {
		t.Errorf("verify says %s, %v", said, err)
	}
	err = fails(append(verify, "--kernel-cert=other.crt")...)
	if !errors.Is(err, kernelsig.ErrUnknown) {
		t.Errorf("another certificate: %v, want ErrUnknown", err)
	}
}

// What is left of a signature for the kernel is no program without one: guests refuse it. verify
// says so whether or not it has a certificate, or a key.
func TestVerifyFindsAKernelSignatureThatIsCutOff(t *testing.T) {
	t.Chdir(t.TempDir())
	mustRun(t, "program", "keygen", "owner")
	mustRun(t, "program", "keygen", "kernel", "--kernel")
	key, err := bundle.ReadPrivateKey("owner.key")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := kernelsig.Append([]byte("\x7fELF"), []byte("signature"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.New(protocol.Offer{Kind: protocol.KindWalk, Version: 1, Name: "walk"},
		whole[len("\x7fELFsig"):])
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) {
		if err := os.WriteFile(name, b.Encode(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("unsigned.fbpp")
	b.Offer.Expires = time.Now().Add(time.Hour).Truncate(time.Second)
	if err := bundle.Sign(&b.Offer, key); err != nil {
		t.Fatal(err)
	}
	write("walk.fbpp")
	for _, args := range [][]string{
		{"walk.fbpp"}, {"walk.fbpp", "--key=owner.pem"},
		{"walk.fbpp", "--key=owner.pem", "--kernel-cert=kernel.crt"}, {"unsigned.fbpp"},
	} {
		args = append([]string{"program", "verify"}, args...)
		err := run(t.Context(), args, new(strings.Builder))
		if !errors.Is(err, kernelsig.ErrTrailer) {
			t.Errorf("fbppctl %s: %v, want ErrTrailer", strings.Join(args, " "), err)
		}
	}
}
