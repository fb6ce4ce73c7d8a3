// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Import paths of the programs that a guest runs.
const (
	InitPackage  = "github.com/fbpp-project/fbpp/tests/guest/init"
	AgentPackage = "github.com/fbpp-project/fbpp/cmd/fbpp-agent"
)

// BuildProgram builds a program of this module for this machine into dir, and returns its
// path. It is linked statically, since a guest has no libraries, and without symbols, since a
// guest keeps it in memory. Equal sources give equal programs in any commit.
func BuildProgram(ctx context.Context, pkg, dir string) (string, error) {
	return build(ctx, X86_64, pkg, dir)
}

// BuildForGuest is BuildProgram for guests of the architecture of [Target].
func BuildForGuest(ctx context.Context, pkg, dir string) (string, error) {
	arch, err := Target()
	if err != nil {
		return "", err
	}
	return build(ctx, arch, pkg, dir)
}

func build(ctx context.Context, arch Arch, pkg, dir string) (string, error) {
	out := filepath.Join(dir, arch.folder(), filepath.Base(pkg))
	return out, goBuild(ctx, arch, out,
		"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
}

// BuildTest builds the tests of a package, with the given build tags, into dir as a
// program for the guest, and returns its path.
func BuildTest(ctx context.Context, pkg, tags, dir string) (string, error) {
	arch, err := Target()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, arch.folder(), filepath.Base(pkg)+".test")
	return out, goBuild(ctx, arch, out, "test", "-c", "-trimpath", "-tags", tags, "-o", out, pkg)
}

func goBuild(ctx context.Context, arch Arch, out string, args ...string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("build %s: %w", filepath.Base(out), err)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch.Debian())
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", filepath.Base(out), err, msg)
	}
	return nil
}
