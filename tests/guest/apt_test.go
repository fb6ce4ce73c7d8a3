// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestParseMirror(t *testing.T) {
	for name, tc := range map[string]struct {
		uris, suite, want string
	}{
		"by the suite's name":    {"'http://deb.example/debian/dists/bookworm/InRelease' x 0\n", "bookworm", "http://deb.example/debian/"},
		"not the updates":        {"'http://a.example/dists/bookworm-updates/InRelease' x\n'http://b.example/dists/bookworm/InRelease' x\n", "bookworm", "http://b.example/"},
		"not the security suite": {"'http://s.example/dists/bookworm-security/InRelease' x\n", "bookworm", ""},
		"by stable":              {"'http://deb.example/debian/dists/stable/InRelease' x\n", "trixie", "http://deb.example/debian/"},
		"a list of mirrors":      {"'mirror+file:/etc/apt/mirrors/debian.list/dists/trixie/InRelease' x\n", "trixie", "mirror+file:/etc/apt/mirrors/debian.list/"},
		"another vendor's":       {"'https://dl.example/linux/dists/nodistro/InRelease' x\n", "bookworm", ""},
		"nothing":                {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parseMirror([]byte(tc.uris), tc.suite)
			if got != tc.want || ok != (tc.want != "") {
				t.Fatalf("got %q, %v, want %q", got, ok, tc.want)
			}
		})
	}
}

func TestParseDepends(t *testing.T) {
	const fields = "Package: linux-image-cloud-amd64\nVersion: 6.12.1-1\nDepends: foo, linux-image-6.12.1+deb13-cloud-amd64 (= 6.12.1-1)\n"
	name, version, ok := parseDepends([]byte(fields), "linux-image-")
	if !ok || name != "linux-image-6.12.1+deb13-cloud-amd64" || version != "6.12.1-1" {
		t.Fatalf("got %q, %q, %v", name, version, ok)
	}
	for _, bad := range []string{"", "Depends: linux-image-6 (>= 6)\n", "Depends: foo (= 1)\n", "Recommends: linux-image-6 (= 6)\n"} {
		if name, _, ok := parseDepends([]byte(bad), "linux-image-"); ok {
			t.Errorf("%q depends on %q", bad, name)
		}
	}
}

func TestCodename(t *testing.T) {
	if got := codename([]byte("ID=debian\nVERSION_CODENAME=\"trixie\"\n")); got != "trixie" {
		t.Fatalf("got %q", got)
	}
	if got := codename([]byte("ID=debian\n")); got != "" {
		t.Fatalf("got %q", got)
	}
}

func TestFindKeyring(t *testing.T) {
	dir := t.TempDir()
	if _, err := findKeyring(dir); err == nil {
		t.Fatal("a keyring was found where there is none")
	}
	want := filepath.Join(dir, "debian-archive-keyring.pgp")
	if err := os.WriteFile(want, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := findKeyring(dir); err != nil || got != want {
		t.Fatalf("got %q, %v", got, err)
	}
}
