// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func mustPolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPolicyThatNamesNobodyTakesNothing(t *testing.T) {
	for _, p := range []*Policy{
		nil, {}, mustPolicy(t, `{}`), mustPolicy(t, `{"kinds": ["walk"], "require_vm": true}`),
	} {
		if p.Takes() || p.Mask() != 0 {
			t.Errorf("%+v takes programs", p)
		}
	}
	if p := mustPolicy(t, `{"key_dir": "/etc/keys"}`); !p.Takes() || p.Mask() != 2 {
		t.Errorf("%+v takes none", p)
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
		"a member twice":           `{"key_dir": "/a", "key_dir": "/b"}`,
		"a limit twice":            `{"limits": {"map_bytes": 1, "map_bytes": 2}}`,
		"another spelling":         `{"Key_Dir": "/a"}`,
		"another spelling inside":  `{"limits": {"MAP_BYTES": 1}}`,
		"an unknown attach point":  `{"limits": {"attach_points": ["do_exit"]}}`,
		"a letter that folds":      `{"kind\u017f": []}`,
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

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(`{"key_dir": "/etc/keys", "limits": {"helpers": ["loop"], "map_bytes": 1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err == nil && (p.Limits.Instructions <= 0 || p.Limits.Helpers == nil) {
			t.Fatalf("%+v has no limits", p)
		}
	})
}
