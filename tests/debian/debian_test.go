// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mustWrite writes a file into a new folder, and returns the folder.
func mustWrite(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMirrorIsFoundInTheSources(t *testing.T) {
	for _, tc := range []struct{ name, uris, suite, want string }{
		{"by the suite's name", "'http://deb.example/debian/dists/bookworm/InRelease' x 0\n",
			"bookworm", "http://deb.example/debian/"},
		{"not the updates", "'http://a.example/dists/bookworm-updates/InRelease' x\n" +
			"'http://b.example/dists/bookworm/InRelease' x\n", "bookworm", "http://b.example/"},
		{"not the security suite", "'http://s.example/dists/bookworm-security/InRelease' x\n",
			"bookworm", ""},
		{"by stable", "'http://deb.example/debian/dists/stable/InRelease' x\n",
			"trixie", "http://deb.example/debian/"},
		{"a list of mirrors", "'mirror+file:/etc/apt/mirrors/debian.list/dists/trixie/InRelease' x\n",
			"trixie", "mirror+file:/etc/apt/mirrors/debian.list/"},
		{"another vendor's suite", "'https://dl.example/linux/dists/nodistro/InRelease' x\n",
			"bookworm", ""},
		{"another vendor's suite of the same name",
			"'https://dl.example/linux/dists/bookworm/InRelease' x\n" +
				"'http://deb.example/debian/dists/bookworm/InRelease' x 0\n",
			"bookworm", "http://deb.example/debian/"},
		{"nothing", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// apt-get prints what it would fetch.
			bin := mustWrite(t, "apt-get", "#!/bin/sh\ncat <<'EOF'\n"+tc.uris+"EOF\n", 0o755)
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			fake := "debian_codename() { echo " + tc.suite + "; }"
			out, err := call(t.Context(), "amd64", "", "eval", fake+"; debian_mirror")
			if got := strings.TrimSpace(string(out)); got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestCodename(t *testing.T) {
	for release, want := range map[string]string{
		"ID=debian\nVERSION_CODENAME=\"trixie\"\n": "trixie",
		"ID=debian\nVERSION_CODENAME=bookworm\n":   "bookworm",
		"ID=debian\n":                              "",
	} {
		file := filepath.Join(mustWrite(t, "os-release", release, 0o644), "os-release")
		out, err := call(t.Context(), "amd64", "", "debian_codename", file)
		if got := strings.TrimSpace(string(out)); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

func TestKeyring(t *testing.T) {
	if out, err := call(t.Context(), "amd64", "", "debian_keyring", t.TempDir()); err == nil ||
		!strings.Contains(err.Error(), "install debian-archive-keyring") {
		t.Errorf("got %q, %v where there is none", out, err)
	}
	dir := mustWrite(t, "debian-archive-keyring.pgp", "", 0o644)
	out, err := call(t.Context(), "amd64", "", "debian_keyring", dir)
	want := filepath.Join(dir, "debian-archive-keyring.pgp")
	if got := strings.TrimSpace(string(out)); got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestInstall(t *testing.T) {
	if _, err := call(t.Context(), "amd64", "", "debian_install", "dpkg", "apt"); err != nil {
		t.Errorf("what is there: %v", err)
	}
	// apt-get fails, and says why.
	bin := mustWrite(t, "apt-get", "#!/bin/sh\necho the network is down\nexit 100\n", 0o755)
	id := []byte("#!/bin/sh\necho ${FAKE_ID:-0}\n")
	if err := os.WriteFile(filepath.Join(bin, "id"), id, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	_, err := call(t.Context(), "amd64", "", "debian_install", "dpkg", "no-such-package")
	const want = "the network is down\ncannot install no-such-package"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	t.Setenv("FAKE_ID", "1000")
	_, err = call(t.Context(), "amd64", "", "debian_install", "no-such-package")
	if err == nil || !strings.Contains(err.Error(), "needs root to install no-such-package") {
		t.Errorf("got %v", err)
	}
}

// A source's options keep apt from the system's state: the fake prints them.
func TestAptReadsTheSourceAlone(t *testing.T) {
	bin := mustWrite(t, "apt-cache", "#!/bin/sh\nprintf '%s\\n' \"$@\"\npwd\n", 0o755)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	s := &Source{t.TempDir(), "amd64"}
	out, err := s.Run(t.Context(), "apt-cache", "show", "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Dir::Etc::SourceList=" + s.dir + "/sources.list\n",
		"Dir::State::Status=/dev/null\n",
		"\nshow\nx\n" + s.dir,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, err := exec.Command("bash", "-n", "debian.sh").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
