// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// apt is a package source of its own: one suite of Debian, its lists and its
// downloads in one folder. Nothing of the system's package state is read, save
// the name of the mirror and the keyring, and nothing of it is written.
type apt struct {
	dir string // holds sources.list, lists/, archives/
}

// newAPT fetches the package lists of a suite into dir.
func newAPT(ctx context.Context, dir, suite string) (*apt, error) {
	mirror, err := findMirror(ctx)
	if err != nil {
		return nil, err
	}
	keyring, err := findKeyring("/usr/share/keyrings")
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make apt's folders: %w", err)
		}
	}
	source := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, suite)
	if err := os.WriteFile(filepath.Join(dir, "sources.list"), []byte(source), 0o644); err != nil {
		return nil, fmt.Errorf("write the sources list: %w", err)
	}
	a := &apt{dir: dir}
	if _, err := a.run(ctx, "apt-get", "update", "--error-on=any"); err != nil {
		return nil, fmt.Errorf("fetch the package lists of %s: %w", suite, err)
	}
	return a, nil
}

// depends returns the name and version that a meta package depends on with an
// exact version, the first whose name begins with prefix.
func (a *apt) depends(ctx context.Context, meta, prefix string) (name, version string, err error) {
	out, err := a.run(ctx, "apt-cache", "show", "--no-all-versions", meta)
	if err != nil {
		return "", "", fmt.Errorf("look up %s: %w", meta, err)
	}
	name, version, ok := parseDepends(out, prefix)
	if !ok {
		return "", "", fmt.Errorf("look up %s: no exact dependency on %s* in %q", meta, prefix, out)
	}
	return name, version, nil
}

// exactDependency matches "name (= version)".
var exactDependency = regexp.MustCompile(`^(\S+) \(= ([^)]+)\)$`)

// parseDepends finds the dependency in the fields of one package.
func parseDepends(fields []byte, prefix string) (name, version string, ok bool) {
	for line := range strings.Lines(string(fields)) {
		list, found := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if !found {
			continue
		}
		for dep := range strings.SplitSeq(list, ", ") {
			m := exactDependency.FindStringSubmatch(dep)
			if m != nil && strings.HasPrefix(m[1], prefix) {
				return m[1], m[2], true
			}
		}
	}
	return "", "", false
}

// unpack downloads a package, checked by apt against the suite's signature, and
// unpacks its files below dir.
func (a *apt) unpack(ctx context.Context, name, version, dir string) error {
	if _, err := a.run(ctx, "apt-get", "download", name+"="+version); err != nil {
		return fmt.Errorf("download %s %s: %w", name, version, err)
	}
	debs, err := filepath.Glob(filepath.Join(a.dir, name+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("download %s: found %q (%v)", name, debs, err)
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", debs[0], err, out)
	}
	return os.Remove(debs[0])
}

// downloadAll downloads packages and all that they depend on, and returns the
// paths of their files.
func (a *apt) downloadAll(ctx context.Context, names []string) ([]string, error) {
	args := append([]string{"install", "--yes", "--download-only", "--no-install-recommends"}, names...)
	if _, err := a.run(ctx, "apt-get", args...); err != nil {
		return nil, fmt.Errorf("download %q: %w", names, err)
	}
	return filepath.Glob(filepath.Join(a.dir, "archives", "*.deb"))
}

// run runs an apt program on this source alone and returns its output.
func (a *apt) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	options := []string{
		"Dir::Etc::SourceList=" + filepath.Join(a.dir, "sources.list"),
		"Dir::Etc::SourceParts=/dev/null",
		"Dir::Etc::Preferences=/dev/null",
		"Dir::Etc::PreferencesParts=/dev/null",
		"Dir::State=" + a.dir,
		"Dir::State::Lists=" + filepath.Join(a.dir, "lists"),
		"Dir::State::Status=/dev/null",
		"Dir::Cache=" + a.dir,
		"Dir::Cache::Archives=" + filepath.Join(a.dir, "archives"),
		"APT::Architecture=amd64",
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::Retries=3",
		// dpkg's lock is for who installs, which nobody does here.
		"Debug::NoLocking=1",
		// The download belongs to us, not to a package state that another user
		// has to be kept from.
		"APT::Sandbox::User=root",
	}
	var all []string
	for _, o := range options {
		all = append(all, "-o", o)
	}
	cmd := exec.CommandContext(ctx, program, append(all, args...)...)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "APT_LISTCHANGES_FRONTEND=none")
	out, err := cmd.Output()
	if err != nil {
		return nil, withStderr(err)
	}
	return out, nil
}

// findMirror returns the Debian mirror of the machine's own apt configuration:
// the one that serves the suite this machine runs.
func findMirror(ctx context.Context) (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("find Debian's mirror: %w", err)
	}
	empty, err := os.MkdirTemp("", "fbpp-apt-")
	if err != nil {
		return "", fmt.Errorf("find Debian's mirror: %w", err)
	}
	defer os.RemoveAll(empty)
	// With empty lists apt would fetch every suite that is configured, and says
	// from where, in whatever syntax the sources are written.
	cmd := exec.CommandContext(ctx, "apt-get", "update", "--print-uris", "-o", "Dir::State::Lists="+empty)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find Debian's mirror: %w", withStderr(err))
	}
	mirror, ok := parseMirror(out, codename(release))
	if !ok {
		return "", fmt.Errorf("find Debian's mirror: apt's configuration has none for %q", codename(release))
	}
	return mirror, nil
}

// parseMirror finds the base of 'base/dists/suite/InRelease' in apt's list of
// what it would fetch. Machines call their suite by its name or by "stable".
func parseMirror(uris []byte, suite string) (string, bool) {
	for _, want := range []string{suite, "stable", "oldstable"} {
		scan := bufio.NewScanner(bytes.NewReader(uris))
		for scan.Scan() {
			uri, _, _ := strings.Cut(strings.TrimPrefix(scan.Text(), "'"), "'")
			base, ok := strings.CutSuffix(uri, "dists/"+want+"/InRelease")
			if ok && want != "" {
				return base, true
			}
		}
	}
	return "", false
}

// codename returns VERSION_CODENAME of an os-release file.
func codename(release []byte) string {
	for line := range strings.Lines(string(release)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// findKeyring returns the keyring of Debian's archive, whose name ends in .pgp
// on newer systems.
func findKeyring(dir string) (string, error) {
	for _, ext := range []string{"gpg", "pgp"} {
		path := filepath.Join(dir, "debian-archive-keyring."+ext)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find Debian's archive keyring in %s: install debian-archive-keyring", dir)
}

// withStderr adds what a program said to its exit status.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
