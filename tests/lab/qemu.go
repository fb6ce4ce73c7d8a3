// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Environment variables that choose the QEMU. make sets the first two from SERIES and
// TARGET, and qemu.sh reads them as well. The third is the path of a binary to use
// instead.
const (
	seriesVariable = "FBPP_SERIES"
	targetVariable = "FBPP_TARGET"
	qemuVariable   = "FBPP_QEMU"
)

// versionMark is in the version of a QEMU that is built from a series of
// qemu-patches.
const versionMark = "fbpp"

// findQEMU returns the path of the QEMU that the environment chooses, and the first
// line that it prints with -version.
func findQEMU(ctx context.Context, root string) (path, version string, err error) {
	path = os.Getenv(qemuVariable)
	if path == "" {
		script := filepath.Join(root, "qemu-patches", "qemu.sh")
		out, err := exec.CommandContext(ctx, script, "path").Output()
		if err != nil {
			return "", "", missing()
		}
		path = strings.TrimSpace(string(out))
	}
	out, err := exec.CommandContext(ctx, path, "-version").Output()
	if err != nil {
		return "", "", missing()
	}
	version, _, _ = strings.Cut(string(out), "\n")
	if !strings.Contains(version, versionMark) {
		return "", "", fmt.Errorf("%s is not built from a series of qemu-patches: it says %q",
			path, version)
	}
	return path, version, nil
}

// IsAtLeast says whether the QEMU is of a version, such as 10.2, or of a later one.
func (l *Lab) IsAtLeast(major, minor int) bool {
	var m, n int
	_, err := fmt.Sscanf(l.Version, "QEMU emulator version %d.%d", &m, &n)
	return err == nil && (m > major || m == major && n >= minor)
}

// missing returns an error that says how to build the QEMU that the environment
// chooses.
func missing() error {
	line := "make qemu-build"
	for _, v := range []struct{ make, variable string }{
		{"SERIES", seriesVariable}, {"TARGET", targetVariable},
	} {
		if value := os.Getenv(v.variable); value != "" {
			line += " " + v.make + "=" + value
		}
	}
	return errors.New("the patched QEMU is missing: run '" + line + "'")
}
