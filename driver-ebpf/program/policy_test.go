// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func mustPolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// defaultLimits returns the limits of a policy that names none.
func defaultLimits(t testing.TB) Limits {
	t.Helper()
	return mustPolicy(t, `{}`).Limits
}

func TestPolicyThatNamesNobodyTakesNothing(t *testing.T) {
	for _, p := range []*Policy{
		nil, {}, mustPolicy(t, `{}`), mustPolicy(t, `{"kinds": ["walk"], "require_vm": true}`),
		mustPolicy(t, `{"kinds": [], "key_dir": "/etc/keys"}`),
	} {
		if p.Takes() || p.Mask() != 0 {
			t.Errorf("%+v takes programs", p)
		}
	}
	for text, mask := range map[string]uint32{
		`{"key_dir": "/etc/keys"}`:                       2 | 4 | 8,
		`{"kinds": ["walk"], "key_dir": "/etc/keys"}`:    2,
		`{"kinds": ["census"], "key_dir": "/etc/keys"}`:  4,
		`{"kinds": ["sampler"], "key_dir": "/etc/keys"}`: 8,
	} {
		p := mustPolicy(t, text)
		if !p.Takes() || p.Mask() != mask || p.TakesWalk() != (mask&2 != 0) {
			t.Errorf("%+v takes kinds %#x", p, p.Mask())
		}
	}
}

func TestPolicyRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                  ``,
		"no object":                `[]`,
		"a member from the future": `{"trust_everyone": true}`,
		"something behind it":      `{} {}`,
		"a brace behind it":        `{} }`,
		"words behind it":          `{} x`,
		"a check by no key":        `{"pinned": [], "require_kernel_signature": true}`,
		"a member twice":           `{"key_dir": "/a", "key_dir": "/b"}`,
		"a limit twice":            `{"limits": {"map_bytes": 1, "map_bytes": 2}}`,
		"another spelling":         `{"Key_Dir": "/a"}`,
		"another spelling inside":  `{"limits": {"MAP_BYTES": 1}}`,
		"an unknown attach point":  `{"limits": {"attach_points": ["do_exit"]}}`,
		"a letter that folds":      `{"kind\u017f": []}`,
		"ready by a word":          `{"ready_loader": "yes"}`,
		"ready by a number":        `{"ready_loader": 1}`,
		"no list":                  `{"limits": {"helpers": null}}`,
		"a limit of minus nothing": `{"limits": {"instructions": -0}}`,
		"a limit of no bytes":      `{"limits": {"map_bytes": 0}}`,
		"objects of no bytes":      `{"limits": {"object_bytes": 0}}`,
		"no instructions":          `{"limits": {"instructions": 0}}`,
		"an unknown kind":          `{"kinds": ["filter"]}`,
		"a digest that is short":   `{"pinned": ["abcd"]}`,
		"a digest that is none":    `{"pinned": ["` + strings.Repeat("x", 64) + `"]}`,
		"a relative folder":        `{"key_dir": "keys"}`,
		"an unknown helper":        `{"limits": {"helpers": ["probe_write_user"]}}`,
		"an unknown map type":      `{"limits": {"map_types": ["prog_array"]}}`,
		"an unknown program type":  `{"limits": {"program_types": ["lsm"]}}`,
		"a negative limit":         `{"limits": {"instructions": -1}}`,
		"too much":                 `{"key_dir": "/` + strings.Repeat("x", maxPolicy) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := ParsePolicy([]byte(text)); err == nil {
				t.Fatalf("got %+v", p)
			}
		})
	}
}

// A loader that waits costs memory: the owner asks for it.
func TestLoaderIsReadyWhereTheOwnerSaysSo(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: false, `{"ready_loader": false}`: false, `{"ready_loader": true}`: true,
	} {
		if p := mustPolicy(t, text); p.ReadyLoader != want {
			t.Errorf("%s: %v", text, p.ReadyLoader)
		}
	}
}

func TestPolicyThatOthersMayWriteIsNotTrusted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(path, []byte(`{}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPolicy(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPolicy(path); !errors.Is(err, ErrUnsafe) {
		t.Fatalf("got %v, want ErrUnsafe", err)
	}
}

// Keys, folders and accepted versions are looked at as the policy is.
func TestOnlyFilesOfTheOwnerAreTrusted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "k[e]y*s") // no pattern
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.pem")
	if err := os.WriteFile(path, []byte(`{}`), 0o644); err != nil {
		t.Fatal(err)
	}
	names, err := listTrusted(dir, ".pem", 1)
	if err != nil || len(names) != 1 || names[0] != path {
		t.Fatalf("%q, error %v", names, err)
	}
	if _, err := listTrusted(dir, ".pem", 0); err == nil {
		t.Error("more keys than allowed")
	}
	if _, err := readTrusted(path, 1); err == nil {
		t.Error("more bytes than allowed")
	}
	if _, err := OpenNewest(path); err != nil {
		t.Error(err)
	}
	fifo := filepath.Join(dir, "fifo.pem")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readTrusted(fifo, 1); err == nil {
		t.Error("a FIFO was read")
	}
	for _, path := range []string{dir, path} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	_, listErr := listTrusted(dir, ".pem", 9)
	_, openErr := OpenNewest(path)
	if !errors.Is(listErr, ErrUnsafe) || !errors.Is(openErr, ErrUnsafe) {
		t.Errorf("errors %v and %v, want %v", listErr, openErr, ErrUnsafe)
	}
	if os.Geteuid() != 0 {
		return // no other user's file can be made
	}
	other := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(other, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(other, 1234, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPolicy(other); !errors.Is(err, ErrUnsafe) {
		t.Errorf("of another user: error %v, want %v", err, ErrUnsafe)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(`{"key_dir": "/etc/keys", "limits": {"helpers": ["loop"], "map_bytes": 1}}`))
	f.Add([]byte(`{"key_dir": "/etc/keys", "ready_loader": true, "require_nonce": false}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err == nil && (p.Limits.Instructions <= 0 || p.Limits.Helpers == nil) {
			t.Fatalf("%+v has no limits", p)
		}
	})
}
