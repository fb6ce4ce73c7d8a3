// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernelsig"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

// Policies of an owner who has a certificate: the second requires the kernel's check.
const (
	kernelPolicy  = `{"key_dir": "/keys"}`
	requirePolicy = `{"key_dir": "/keys", "require_kernel_signature": true}`
)

// kernelOwner is an owner with a second key, for the kernel.
type kernelOwner struct {
	*owner
	signer *kernelsig.Signer
}

func mustKernelOwner(t testing.TB) *kernelOwner {
	t.Helper()
	o := &kernelOwner{owner: mustOwner(t)}
	private, certificate, err := kernelsig.GenerateKey("owner", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := kernelsig.ParseCertificate("owner", certificate)
	if err != nil {
		t.Fatal(err)
	}
	if o.signer, err = kernelsig.NewSigner(private, parsed); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"keys/kernel.crt": string(certificate),
		"certified.json":  kernelPolicy, "require.json": requirePolicy,
	} {
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o.files[name] = path
	}
	return o
}

// signed returns an object with a signature by the owner's key for the kernel, of its installer or
// of what change makes of that.
func (o *kernelOwner) signed(object []byte, change func(signed []byte)) []byte {
	o.t.Helper()
	installer, err := kernelsig.ReadInstaller(object)
	if err != nil {
		o.t.Fatal(err)
	}
	if change != nil {
		change(installer.Bytes)
	}
	signature, err := o.signer.Sign(installer)
	if err != nil {
		o.t.Fatal(err)
	}
	both, err := kernelsig.Append(object, signature)
	if err != nil {
		o.t.Fatal(err)
	}
	return both
}

// makeSigned makes the project's program of a kind, with both signatures.
func (o *kernelOwner) makeSigned(kind protocol.ProgramKind) *bundle.Bundle {
	o.t.Helper()
	return o.signKind(kind, o.signed(mustObject(o.t, kind), nil), 1)
}

// restart starts an agent with another policy, after the one that runs, if any.
func (m *machine) restart(policy string, running bool) {
	m.t.Helper()
	if running {
		m.signalAgent(9)
		m.waitAgent()
	}
	err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath, "--no-built-in",
		"--program-policy=/"+policy, "--program-accepted=/accepted.json")
	if err != nil {
		m.t.Fatal(err)
	}
	m.awaitSession()
}

// requireRefused pushes a program that the guest refuses for that reason.
func (m *machine) requireRefused(b *bundle.Bundle, reason string) {
	m.t.Helper()
	m.push(b, driver.AtNow)
	p := m.awaitProgram(b, "refused")
	if !strings.Contains(p.Reason, reason) {
		m.t.Errorf("the host is told %q, want %q", p.Reason, reason)
	}
	m.t.Log(p.Reason)
}

// A kernel that can checks who signed a program for it. What it refuses leaves the program before
// in use. A policy can require a signature.
func TestKernelChecksWhoSignedAProgram(t *testing.T) {
	o, stranger := mustKernelOwner(t), mustKernelOwner(t)
	m := boot(t, setup{series: guest.Linux7_3, noAgent: true, files: o.files})
	m.restart("certified.json", false)

	first := o.sign(o.signed(o.renewed(1), nil), 1, nil)
	m.push(first, driver.AtNow)
	told := m.awaitProgram(first, "active")
	t.Logf("fetched in %d us, loaded in %d us", told.FetchUS, told.LoadUS)
	m.requireMigration("ok")

	altered := o.signed(o.renewed(2), func(signed []byte) { signed[4]++ })
	m.requireRefused(o.sign(altered, 2, nil), "something else was signed")
	unknown := stranger.signed(o.renewed(3), nil)
	m.requireRefused(o.sign(unknown, 3, nil), "no certificate of the owner")
	broken, err := kernelsig.Append(o.renewed(4), []byte("no PKCS#7"))
	if err != nil {
		t.Fatal(err)
	}
	m.requireRefused(o.sign(broken, 4, nil), "bad message")
	hostile := o.signed(o.unverifiable(), nil)
	m.requireRefused(o.sign(hostile, 5, nil), "R9")
	m.awaitProgram(first, "active")

	census := o.makeSigned(protocol.KindCensus)
	m.push(census, driver.AtNow)
	m.awaitProgram(census, "active")
	m.guestCensus(census)
	sampler := o.makeSigned(protocol.KindSampler)
	m.push(sampler, driver.AtNow)
	m.awaitProgram(sampler, "active")
	if s := m.sample(); s.HotBytes == 0 {
		t.Error("the guest has used nothing")
	}

	m.restart("require.json", true)
	m.requireRefused(o.sign(o.renewed(7), 7, nil), "the object has none")
	last := o.sign(o.signed(o.renewed(8), nil), 8, nil)
	m.push(last, driver.AtNow)
	m.awaitProgram(last, "active")
	m.requireMigration("ok")
}

// On a kernel that checks nothing, it does not matter whether a program has a signature for it,
// unless the owner requires the check.
func TestOlderKernelChecksNoSignatureOfAProgram(t *testing.T) {
	o := mustKernelOwner(t)
	m := boot(t, setup{series: guest.Linux6_12, noAgent: true, files: o.files})
	m.restart("certified.json", false)
	first := o.sign(o.signed(o.renewed(1), nil), 1, nil)
	m.push(first, driver.AtNow)
	m.awaitProgram(first, "active")
	m.requireMigration("ok")
	second := o.sign(o.renewed(2), 2, nil) // without
	m.push(second, driver.AtNow)
	m.awaitProgram(second, "active")

	m.restart("require.json", true)
	m.requireRefused(o.sign(o.signed(o.renewed(3), nil), 3, nil), "checks no signatures")
}
