// SPDX-License-Identifier: Apache-2.0

// Package debian fetches packages of a Debian suite, and leaves the system's own package
// state alone. It runs debian.sh, which the project's scripts use as well.
package debian

import (
	"bytes"
	"context"
	_ "embed" // of the script
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed debian.sh
var script string

// Source is a folder with the lists and downloads of one Debian suite.
type Source struct {
	dir  string // absolute; holds sources.list, lists/, archives/
	arch string // of the packages, by Debian's name
}

// OpenSource fetches the package lists of a suite into dir. The packages are for the
// architecture, by Debian's name such as amd64.
func OpenSource(ctx context.Context, dir, suite, arch string) (*Source, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open Debian %s: %w", suite, err)
	}
	if _, err := call(ctx, arch, "", "debian_source", dir, "deb "+suite); err != nil {
		return nil, fmt.Errorf("fetch the package lists of Debian %s: %w", suite, err)
	}
	return &Source{dir, arch}, nil
}

// Dir is the source's folder, in which its programs run.
func (s *Source) Dir() string { return s.dir }

// Run runs an apt program that uses only this source, in its folder, and returns its
// standard output.
func (s *Source) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	args = append([]string{s.dir, program}, args...)
	return call(ctx, s.arch, s.dir, "debian_apt", args...)
}

// Archives returns the paths of the packages that apt-get install --download-only fetched.
func (s *Source) Archives() ([]string, error) {
	return filepath.Glob(filepath.Join(s.dir, "archives", "*.deb"))
}

// call calls a function of the script and returns its standard output. Its standard error
// becomes part of the error.
func call(ctx context.Context, arch, dir, function string, args ...string) ([]byte, error) {
	command := append([]string{"-c", script + "\n\"$@\"", "debian", function}, args...)
	cmd := exec.CommandContext(ctx, "bash", command...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "debian_arch="+arch)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return out, fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}
