// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fbpp-project/fbpp/tests/debian"
)

// apt is a Debian suite from which packages are fetched.
type apt struct{ source *debian.Source }

// newAPT fetches the package lists of a suite into dir, for guests of an architecture.
func newAPT(ctx context.Context, dir, suite string, arch Arch) (*apt, error) {
	source, err := debian.OpenSource(ctx, dir, suite, arch.Debian())
	if err != nil {
		return nil, err
	}
	return &apt{source}, nil
}

// depends returns the first dependency of a meta package with an exact version and a
// name that begins with prefix.
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

// newest is the version of a package that the suite has.
const newest = ""

// unpack downloads a package, checked by apt against the suite's signature, and
// unpacks its files below dir.
func (a *apt) unpack(ctx context.Context, name, version, dir string) error {
	wanted := name
	if version != newest {
		wanted += "=" + version
	}
	if _, err := a.run(ctx, "apt-get", "download", wanted); err != nil {
		return fmt.Errorf("download %s %s: %w", name, version, err)
	}
	debs, err := filepath.Glob(filepath.Join(a.source.Dir(), name+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("download %s: found %q (%v)", name, debs, err)
	}
	out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unpack %s: %w: %s", debs[0], err, out)
	}
	return os.Remove(debs[0])
}

// downloadAll downloads packages and all that they depend on, and returns the
// paths of their files.
func (a *apt) downloadAll(ctx context.Context, names []string) ([]string, error) {
	args := []string{"install", "--yes", "--download-only", "--no-install-recommends"}
	args = append(args, names...)
	if _, err := a.run(ctx, "apt-get", args...); err != nil {
		return nil, fmt.Errorf("download %q: %w", names, err)
	}
	return a.source.Archives()
}

// run runs an apt program that uses only this source, and returns its output.
func (a *apt) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	return a.source.Run(ctx, program, args...)
}

// withStderr adds a program's standard error to the error of its exit status.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
