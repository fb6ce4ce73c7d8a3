// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// mustRun runs a command and returns what it prints.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("fbppctl %s: %v", strings.Join(args, " "), err)
	}
	return out.String()
}

func TestProgramIsSignedVerifiedAndPushed(t *testing.T) {
	path := mustServe(t)
	programs, status := mustSchema(t, "program"), mustSchema(t, "status")
	t.Chdir(t.TempDir())
	if err := os.WriteFile("walk.o", []byte("\x7fELF object"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "program", "keygen", "owner")
	mustRun(t, "program", "keygen", "other")
	for file, mode := range map[string]os.FileMode{"owner.key": 0o600, "owner.pem": 0o644} {
		if info, err := os.Stat(file); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	mustRun(t, "program", "sign", "walk.o", "--key=owner.key", "--version-number=7",
		"--for-vm=6f2a1c1e-0000-4000-8000-0123456789ab", "--for-session=12ab")
	said := mustRun(t, "program", "verify", "walk.fbpp", "--key=owner.pem")
	for _, want := range []string{
		"walk, walk, version 7", "6f2a1c1e-0000-4000-8000-0123456789ab", "session 00000000000012ab",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("verify does not say %q: %s", want, said)
		}
	}
	wrong := []string{"program", "verify", "walk.fbpp", "--key=other.pem"}
	err := run(t.Context(), wrong, new(strings.Builder))
	if !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("another key: %v, want ErrSignature", err)
	}

	if !strings.Contains(said, "signed by key") {
		t.Errorf("verify says %s", said)
	}

	t.Setenv("FBPP_CONTROL_PATH", path)
	said = mustRun(t, "program", "push", "walk.fbpp", "--at=migration")
	if !strings.Contains(said, "migration") || !strings.Contains(said, "offered") {
		t.Errorf("push says %s", said)
	}
	said = mustRun(t, "program", "status")
	if !strings.Contains(said, "takes no programs") || !strings.Contains(said, "signed by key") {
		t.Errorf("status says %s", said)
	}
	validate(t, programs, mustRun(t, "program", "list", "--json"))
	validate(t, status, mustRun(t, "status", "--json"))
	if said = mustRun(t, "program", "withdraw", "walk"); strings.Contains(said, "migration") {
		t.Errorf("withdraw says %s", said)
	}
	again := []string{"program", "withdraw", "walk"}
	if err := run(t.Context(), again, new(strings.Builder)); err == nil {
		t.Error("withdrawn twice")
	}
}

// A census is signed as one, and counts only where a guest has it in use.
func TestCensusIsSignedPushedAndAskedFor(t *testing.T) {
	t.Setenv("FBPP_CONTROL_PATH", mustServe(t))
	t.Chdir(t.TempDir())
	if err := os.WriteFile("census.o", []byte("\x7fELF object"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "program", "sign", "census.o", "--kind=census", "--unsigned")
	said := mustRun(t, "program", "push", "census.fbpp")
	if !strings.Contains(said, "census  census") {
		t.Errorf("push says %s", said)
	}
	err := run(t.Context(), []string{"census", "--from=guest"}, new(strings.Builder))
	if err == nil || !strings.Contains(err.Error(), driver.ErrNoProgramOfKind.Error()) {
		t.Errorf("a guest without a census: %v", err)
	}
	for _, args := range [][]string{
		{"census", "--from=somewhere"},
		{"program", "sign", "census.o", "--kind=filter", "--unsigned"},
	} {
		if err := run(t.Context(), args, new(strings.Builder)); !errors.As(err, new(cli.UsageError)) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// A sample is asked for as a census is, and only where a guest has a sampler in use.
func TestSampleIsAskedFor(t *testing.T) {
	t.Setenv("FBPP_CONTROL_PATH", mustServe(t))
	t.Chdir(t.TempDir())
	if err := os.WriteFile("sampler.o", []byte("\x7fELF object"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "program", "sign", "sampler.o", "--kind=sampler", "--unsigned")
	if said := mustRun(t, "program", "push", "sampler.fbpp"); !strings.Contains(said, "sampler") {
		t.Errorf("push says %s", said)
	}
	args := []string{"program", "push", "sampler.fbpp", "--at=migration"}
	err := run(t.Context(), args, new(strings.Builder))
	if err == nil || !strings.Contains(err.Error(), device.ErrNoWalkAtMigration.Error()) {
		t.Errorf("at a migration: %v", err)
	}
	if err := run(t.Context(), []string{"sample"}, new(strings.Builder)); err == nil {
		t.Error("a guest without a sampler has sampled")
	}
	for _, interval := range []string{"0s", "61s", "soon"} {
		err := run(t.Context(), []string{"sample", "--interval=" + interval}, new(strings.Builder))
		if !errors.As(err, new(cli.UsageError)) {
			t.Errorf("in %s: %v", interval, err)
		}
	}
}

// What is printed of a sample has the schema's form, also as a part of the status.
func TestSampleIsPrinted(t *testing.T) {
	s := &device.WorkingSet{
		Taken: time.Unix(1_800_000_000, 0).UTC(), IntervalMS: 10_000, HotBytes: 300 << 20,
		MemoryBytes: 2 << 30, TookUS: 11_000_000, Runs: 256, RunMaxUS: 900,
		Digest: protocol.Digest{1}.String(),
	}
	var out strings.Builder
	if err := printWorkingSet(&out, s); err != nil {
		t.Fatal(err)
	}
	want := "The guest has used 300 of 2048 MiB in 10s.\n" +
		"It has found that in 11000 ms, by 256 runs of 010000000000, the longest of 900 µs.\n"
	if out.String() != want {
		t.Errorf("printed is %q, want %q", out.String(), want)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	validate(t, mustSchema(t, "sample"), string(text))
	status, err := json.Marshal(device.Status{WorkingSet: s})
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`"working_set":(\{[^}]*\})`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("the status is %s", status)
	}
	validate(t, mustSchema(t, "sample"), string(found[1]))
}

// Nobody takes a forged signature for a good one.
func TestSignatureThatIsNotCheckedIsNotVerified(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("walk.o", []byte("object"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "program", "keygen", "owner")
	mustRun(t, "program", "sign", "walk.o", "--key=owner.key")
	mustRun(t, "program", "sign", "walk.o", "--unsigned", "--out=unsigned.fbpp")
	b, err := bundle.Read("walk.fbpp")
	if err != nil {
		t.Fatal(err)
	}
	b.Offer.Signature[0]++
	if err := os.WriteFile("forged.fbpp", b.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want error
		says string
	}{
		"a good one, without a key":   {[]string{"walk.fbpp"}, errUnchecked, "names key"},
		"a forged one, without a key": {[]string{"forged.fbpp"}, errUnchecked, "names key"},
		"a forged one": {[]string{"forged.fbpp", "--key=owner.pem"},
			bundle.ErrSignature, "names key"},
		"none": {[]string{"unsigned.fbpp"}, bundle.ErrUnsigned, "not signed"},
		"none, with a key": {[]string{"unsigned.fbpp", "--key=owner.pem"},
			bundle.ErrUnsigned, "not signed"},
		"as JSON": {[]string{"forged.fbpp", "--json"}, errUnchecked, `"verified":false`},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := run(t.Context(), append([]string{"program", "verify"}, c.args...), &out)
			if !errors.Is(err, c.want) || !strings.Contains(out.String(), c.says) ||
				strings.Contains(out.String(), "signed by") {
				t.Errorf("%v: %s", err, out.String())
			}
		})
	}
}

// A pair of keys that cannot be made leaves nothing behind.
func TestHalfAPairOfKeysIsNotLeftBehind(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("owner.pem", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), []string{"program", "keygen", "owner"}, new(strings.Builder))
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	if _, err := os.Stat("owner.key"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the private key: %v", err)
	}
	if text, err := os.ReadFile("owner.pem"); string(text) != "mine" {
		t.Errorf("the file that was there: %q, %v", text, err)
	}
}

func TestProgramCommandsRefuse(t *testing.T) {
	t.Setenv("FBPP_CONTROL_PATH", mustServe(t))
	t.Chdir(t.TempDir())
	if err := os.WriteFile("walk.o", []byte("object"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "program", "keygen", "owner")
	for name, c := range map[string]struct {
		args  []string
		usage bool
	}{
		"no key":               {[]string{"sign", "walk.o"}, true},
		"a key and no key":     {[]string{"sign", "walk.o", "--key=owner.key", "--unsigned"}, true},
		"no UUID":              {[]string{"sign", "walk.o", "--unsigned", "--for-vm=vm1"}, true},
		"no session":           {[]string{"sign", "walk.o", "--unsigned", "--for-session=0"}, true},
		"a public key to sign": {[]string{"sign", "walk.o", "--key=owner.pem"}, false},
		"a name of two lines":  {[]string{"sign", "walk.o", "--unsigned", "--name=a\nb"}, false},
		"a key that exists":    {[]string{"keygen", "owner"}, false},
		"an object pushed":     {[]string{"push", "walk.o"}, false},
		"an unknown moment":    {[]string{"push", "walk.o", "--at=later"}, true},
		"a file that is gone":  {[]string{"push", "none.fbpp"}, false},
		"an object verified":   {[]string{"verify", "walk.o"}, false},
		"no name to withdraw":  {[]string{"withdraw", ""}, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), append([]string{"program"}, c.args...), new(strings.Builder))
			if err == nil || errors.As(err, new(cli.UsageError)) != c.usage {
				t.Fatalf("error %v, of the command line: %v", err, c.usage)
			}
		})
	}
	if _, err := os.Stat(filepath.Join("walk.fbpp")); err == nil {
		t.Error("a refused command has written a file")
	}
}

func TestProgramIsNamedByItsNameOrDigest(t *testing.T) {
	all := []driver.Program{
		{Name: "a", Digest: strings.Repeat("1", 64)}, {Name: "b", Digest: strings.Repeat("2", 64)},
		{Digest: strings.Repeat("1", 63) + "2"},
	}
	for name, want := range map[string]string{
		"": "", "b": all[1].Digest, "22222222": all[1].Digest, "2222": "", "c": "", "11111111": "",
		all[0].Digest: all[0].Digest,
	} {
		if got, err := named(all, name); got != want || (err == nil) != (want != "") {
			t.Errorf("%s names %q, %v; want %q", name, got, err, want)
		}
	}
}

// Whoever has taken fbppd over sends what it likes.
func TestAKeyThatNeverExpiresIsNotShown(t *testing.T) {
	var out strings.Builder
	status := device.Status{Programs: []driver.Program{{Digest: "1234", KeyID: "5678"}}}
	if err := programDetails(&out, status); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "1234") || strings.Contains(got, "5678") {
		t.Errorf("fbppctl prints %q", got)
	}
}
