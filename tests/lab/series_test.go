// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// scripts is a copy of qemu.sh, with series of its own.
type scripts struct {
	t   *testing.T
	dir string
}

func newScripts(t *testing.T) *scripts {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	s := &scripts{t: t, dir: t.TempDir()}
	for _, dir := range []string{"qemu-patches/lib", "tests/debian"} {
		err := os.CopyFS(filepath.Join(s.dir, dir), os.DirFS(filepath.Join(root, dir)))
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "qemu-patches/qemu.sh"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("qemu-patches/qemu.sh", string(text))
	return s
}

func (s *scripts) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// run runs qemu.sh on a series, and returns what it says on each stream. Programs of
// the folder bin go before the system's.
func (s *scripts) run(series string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.dir, "qemu-patches/qemu.sh"),
		append([]string{"--series", series}, args...)...)
	cmd.Env = append(os.Environ(), "FBPP_CACHE="+filepath.Join(s.dir, "cache"),
		"PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// patch returns one as git writes it. What is noise differs with the number.
func patch(number int, subject, change string) string {
	return fmt.Sprintf("From 0\nDate: day %[1]d\nSubject: [PATCH] %[2]s\n\nWhy.\n"+
		"---\n a | %[1]d +\n\ndiff --git a/a b/a\nindex %[1]d..2 100644\n"+
		"--- a/a\n+++ b/a\n@@ -%[1]d,2 +%[1]d,2 @@\n around %[1]d\n%[3]s\n",
		number, subject, change)
}

func TestCompareShowsWhatASeriesHasInstead(t *testing.T) {
	s := newScripts(t)
	s.write("qemu-patches/1.0/BASE", "")
	s.write("qemu-patches/1.0/0001-gone.patch", patch(1, "a: gone", "+gone"))
	s.write("qemu-patches/1.0/0002-same.patch", patch(2, "a: same", "+same"))
	s.write("qemu-patches/1.0/0003-changed.patch", patch(3, "a: changed", "-before\n+first"))
	s.write("qemu-patches/2.0/BASE", "")
	s.write("qemu-patches/2.0/0001-same.patch", patch(1, "a: same", "+same"))
	s.write("qemu-patches/2.0/0002-changed.patch", patch(2, "a: changed", "-before\n+second"))
	s.write("qemu-patches/2.0/0003-new.patch", patch(3, "a: new", "+new"))

	stdout, stderr, err := s.run("2.0", "compare")
	if err != nil {
		t.Fatal(err, stderr)
	}
	for _, want := range []string{"only in 1.0: 0001-gone.patch\n", "only in 2.0: new.patch\n",
		"--- 1.0/0003-changed.patch\n+++ 2.0/0002-changed.patch\n", "\n-+first\n", "\n++second\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
	for _, noise := range []string{"same", "around", "index", "day", "+++ b/a | "} {
		if strings.Contains(stdout, noise) {
			t.Errorf("%q in:\n%s", noise, stdout)
		}
	}
	if !strings.HasSuffix(stderr, "from 1.0 to 2.0: 1 patches say the same, 1 differ\n") {
		t.Error(stderr)
	}
	if _, stderr, err := s.run("2.0", "compare", "3.0"); err == nil ||
		!strings.Contains(stderr, "no series for QEMU 3.0") {
		t.Error(err, stderr)
	}
}

// A mirror drops a version when a newer one comes. What it lists it may not give.
func TestSourceThatIsGoneIsOneClearLine(t *testing.T) {
	const mirror = `for suite in $(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release) stable; do
	echo "'http://mirror.example/debian/dists/$suite/InRelease' x"
done`
	for _, c := range []struct{ name, listed, want string }{
		{"gone", "1:10.3", "qemu.sh: sid of the mirror has no qemu 1:10.2 any more, " +
			"only 1:10.3: see README.md, 'A version that is gone'\n"},
		{"not given", "1:10.2", "qemu.sh: the mirror lists qemu 1:10.2, but does not give it: " +
			"Failed to fetch q.dsc  404  Not Found\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripts(t)
			s.write("qemu-patches/10.2/BASE", "release=sid\npackage=qemu\nversion=1:10.2\ndsc=q.dsc\n")
			s.write("bin/apt-cache", "#!/bin/sh\necho Version: "+c.listed+"\n")
			s.write("bin/apt-get", "#!/bin/bash\ncase $* in\n*--print-uris*)\n"+mirror+" ;;\n"+
				"*' source '*) echo 'E: Failed to fetch q.dsc  404  Not Found' >&2; exit 100 ;;\nesac\n")
			_, stderr, err := s.run("10.2", "--quiet", "source")
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || stderr != c.want {
				t.Errorf("%v: got\n%swant\n%s", err, stderr, c.want)
			}
		})
	}
}
