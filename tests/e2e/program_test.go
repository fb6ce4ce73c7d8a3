// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// programPolicy is the policy of the guest's owner: what the key in this folder signed.
const programPolicy = `{"key_dir": "/keys"}`

// owner has the key of a guest's owner.
type owner struct {
	t      testing.TB
	key    ed25519.PrivateKey
	object []byte
	files  map[string]string // for the guest
}

func mustOwner(t testing.TB) *owner {
	t.Helper()
	dir := t.TempDir()
	o := &owner{t: t, files: make(map[string]string)}
	private, public, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"policy.json": []byte(programPolicy), "keys/owner.pem": public, "secret": private,
	} {
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != "secret" {
			o.files[name] = path
		} else if o.key, err = bundle.ReadPrivateKey(path); err != nil {
			t.Fatal(err)
		}
	}
	o.object = mustObject(t, protocol.KindWalk)
	return o
}

// setPolicy replaces the policy that the guest gets.
func (o *owner) setPolicy(text string) {
	o.t.Helper()
	if err := os.WriteFile(o.files["policy.json"], []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// sign makes a program of an object, signed, but for what change alters before.
func (o *owner) sign(object []byte, version uint64, change func(*protocol.Offer)) *bundle.Bundle {
	o.t.Helper()
	b, err := bundle.New(protocol.Offer{
		Kind: protocol.KindWalk, Version: version, Name: "walk",
		Expires: time.Now().Add(time.Hour),
	}, object)
	if err != nil {
		o.t.Fatal(err)
	}
	if change != nil {
		change(&b.Offer)
	}
	if err := bundle.Sign(&b.Offer, o.key); err != nil {
		o.t.Fatal(err)
	}
	return b
}

// renewed is the walk's object with another digest: what is appended is no part of the ELF
// file's sections.
func (o *owner) renewed(version byte) []byte { return append(slices.Clone(o.object), version) }

// unverifiable is the walk's object with a first instruction that reads a register which has
// no value yet.
func (o *owner) unverifiable() []byte {
	o.t.Helper()
	f, err := elf.NewFile(bytes.NewReader(o.object))
	if err != nil {
		o.t.Fatal(err)
	}
	object := slices.Clone(o.object)
	copy(object[f.Section("kprobe").Offset:], []byte{0xbf, 0x90, 0, 0, 0, 0, 0, 0}) // r0 = r9
	return object
}

// push offers a program now.
func (m *machine) push(b *bundle.Bundle, at driver.When) {
	m.t.Helper()
	if _, err := m.backend.Control.PushProgram(m.ctx, b.Encode(), at); err != nil {
		m.t.Fatal(err)
	}
}

// awaitProgram waits until the guest is done with a program, and returns what it says.
func (m *machine) awaitProgram(b *bundle.Bundle, state string) driver.Program {
	m.t.Helper()
	for {
		s, err := m.backend.Control.Status(m.ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, p := range s.Programs {
			if p.Digest != b.Offer.Digest.String() {
				continue
			}
			if p.State == state {
				return p
			}
			if p.State == "refused" || p.State == "active" && state == "refused" {
				m.t.Fatalf("the program is %+v, want it %s", p, state)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startBare starts an agent without a built-in program, and waits until it takes programs.
func (m *machine) startBare() {
	m.t.Helper()
	err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath, "--no-built-in",
		"--program-policy=/policy.json", "--program-accepted=/accepted.json")
	if err != nil {
		m.t.Fatal(err)
	}
	m.awaitSession()
}

func (m *machine) awaitSession() (nonce uint64) {
	m.t.Helper()
	for {
		s, err := m.backend.Control.Status(m.ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		if s.Session != nil {
			if nonce, err = strconv.ParseUint(s.Session.Nonce, 16, 64); err != nil {
				m.t.Fatal(err)
			}
			return nonce
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// logLoads logs where the times of the loads went, as the agent says. Each was by a loader that had
// begun before the object was there.
func (m *machine) logLoads() {
	m.t.Helper()
	said, err := m.agentOutput()
	if err != nil {
		m.t.Fatal(err)
	}
	loads := 0
	for line := range strings.Lines(said) {
		if _, times, ok := strings.Cut(line, "time of a load"); ok {
			m.t.Logf("load: %s", strings.TrimSpace(times))
			if !strings.Contains(times, `"ready": true`) {
				m.t.Error("the loader was not ready")
			}
			loads++
		}
	}
	if loads == 0 {
		m.t.Errorf("the agent does not say where the time of a load went:\n%s", said)
	}
}

// loaderName is the name of the agent's loader as /proc/PID/comm has it: it is started from there.
const loaderName = "exe"

// awaitReadyLoader waits until a loader of the agent has been ready, and one is there.
func (m *machine) awaitReadyLoader() {
	m.t.Helper()
	for {
		said, err := m.agentOutput()
		if err == nil && strings.Contains(said, "loader is ready") {
			if _, err = m.vm.Run(m.ctx, "/init", "activity", loaderName); err == nil {
				return
			}
		}
		if m.ctx.Err() != nil {
			m.t.Fatalf("no loader is ready: %v\n%s", err, said)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// awaitNoLoader waits until there is none.
func (m *machine) awaitNoLoader() {
	m.t.Helper()
	for {
		_, err := m.vm.Run(m.ctx, "/init", "activity", loaderName)
		switch {
		case err == nil:
		case strings.Contains(err.Error(), "no such program runs"):
			return
		default:
			m.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// requireMigration migrates, and checks that free memory was skipped, and that the memory is sound.
func (m *machine) requireMigration(status string) *vm.Migration {
	m.t.Helper()
	figures := m.migrate()
	requireHints(m.t, figures, status)
	m.requireSound()
	m.awaitSession()
	return figures
}

// An agent without a program gets one of the host in the setup of a migration, by a loader that
// waits for it, as the guest's owner wants. Programs are renewed, refused and withdrawn while the
// guest runs, and each migration skips what the program in use finds.
func TestProgramOfTheHost(t *testing.T) {
	o := mustOwner(t)
	o.setPolicy(`{"key_dir": "/keys", "ready_loader": true}`)
	m := boot(t, setup{noAgent: true, files: o.files, device: patientDevice()})
	m.startBare()
	if figures := m.requireMigration("refused"); figures.Hints.Skipped != 0 {
		t.Fatalf("skipped %d pages without a program", figures.Hints.Skipped)
	}

	first := o.sign(o.object, 2, nil)
	m.awaitReadyLoader()
	m.push(first, driver.AtMigration)
	figures := m.requireMigration("ok")
	t.Logf("injected in %d µs of %d µs", figures.Hints.Phase(source.PhaseInject),
		figures.Hints.Exchange)
	if figures.Hints.Phase(source.PhaseInject) == 0 {
		t.Errorf("the phases are %+v", figures.Hints.Phases)
	}
	told := m.awaitProgram(first, "active") // by the guest, to a host that did not push it
	t.Logf("fetched in %d µs, loaded in %d µs", told.FetchUS, told.LoadUS)
	m.logLoads()
	if told.At != "" {
		t.Errorf("the next host says %+v", told)
	}

	second := o.sign(o.renewed(3), 3, nil)
	m.push(second, driver.AtNow)
	m.awaitProgram(second, "active")
	m.awaitProgram(first, "withdrawn")
	figures = m.requireMigration("ok")
	if figures.Hints.Phase(source.PhaseInject) != 0 {
		t.Errorf("the phases of a program that was there are %+v", figures.Hints.Phases)
	}
	m.awaitProgram(second, "active")

	t.Run("refused", func(t *testing.T) {
		defer m.in(t)()
		m.requireRefusals(o, second)
	})
	if _, err := m.backend.Control.WithdrawProgram(m.ctx, second.Offer.Digest.String()); err != nil {
		t.Fatal(err)
	}
	m.awaitProgram(second, "withdrawn")
	m.requireMigration("refused")

	m.push(second, driver.AtNow)
	m.awaitProgram(second, "active")
	m.awaitReadyLoader()
	m.signalAgent(9)
	m.waitAgent()
	m.awaitNoLoader()
	m.startBare()
	m.awaitProgram(second, "active") // offered to the new agent, whose state is on disk
	m.push(first, driver.AtNow)
	if p := m.awaitProgram(first, "refused"); !strings.Contains(p.Reason, "newer version") {
		t.Errorf("after a restart of the agent a lower version is refused by %q", p.Reason)
	}
	m.requireMigration("ok")
}

// requireRefusals pushes what the guest must not take. The program before stays in use, and
// the host is told why. With -soak a migration follows each, else the last.
func (m *machine) requireRefusals(o *owner, inUse *bundle.Bundle) {
	stranger := mustOwner(m.t)
	next := o.renewed(9)
	unsigned := o.sign(next, 9, nil)
	unsigned.Offer.Signature = [protocol.SignatureSize]byte{}
	hostile := slices.Concat([]byte("\x7fELF\x02\x01\x01"), bytes.Repeat([]byte{0xff}, 9000))
	all := []struct {
		what   string
		b      *bundle.Bundle
		reason string
		log    string
	}{
		{"unsigned", unsigned, "not signed", ""},
		{"signed by another", stranger.sign(next, 9, nil), "neither pins it nor has a key", ""},
		{"expired", o.sign(next, 9, func(f *protocol.Offer) {
			f.Expires = time.Now().Add(-time.Hour)
		}), "has expired", ""},
		{"of another session", o.sign(next, 9, func(f *protocol.Offer) {
			f.Nonce = m.awaitSession() ^ 1
		}), "another session", ""},
		{"of another VM", o.sign(next, 9, func(f *protocol.Offer) { f.VM[0] = 1 }),
			"not signed for this VM", ""},
		{"a lower version", o.sign(o.object, 1, nil), "newer version", ""},
		{"no ELF file", o.sign(hostile, 9, nil), "parse the object", ""},
		{"one that the verifier refuses", o.sign(o.unverifiable(), 9, nil), "the kernel refuses",
			"R9 !read_ok"},
	}
	for i, c := range all {
		m.push(c.b, driver.AtNow)
		p := m.awaitProgram(c.b, "refused")
		if !strings.Contains(p.Reason, c.reason) || !strings.Contains(p.Log, c.log) {
			m.t.Errorf("%s: the host is told %q, and the log %q", c.what, p.Reason, p.Log)
		}
		m.t.Logf("%s: %s", c.what, p.Reason)
		if c.log != "" {
			m.t.Log(p.Log)
		}
		m.awaitProgram(inUse, "active")
		if *soak || i == len(all)-1 {
			m.requireMigration("ok")
		}
	}
}
