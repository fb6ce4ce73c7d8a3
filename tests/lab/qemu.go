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

	"github.com/fbpp-project/fbpp/tests/vm"
)

// What names the QEMU: make sets the two from SERIES and TARGET, qemu.sh reads
// them as well, and the third is the path of a binary that stands instead.
const (
	seriesVariable = "FBPP_SERIES"
	targetVariable = "FBPP_TARGET"
	qemuVariable   = "FBPP_QEMU"
)

// versionMark is what QEMU's -version says when it is built from the series.
const versionMark = "fbpp"

// target returns the architecture that the guests are of.
func target() (vm.Target, error) {
	t := vm.Target(os.Getenv(targetVariable))
	if t == "" {
		t = vm.X86_64
	}
	if !t.Known() {
		return "", fmt.Errorf("%s is %q, and there are no guests for that", targetVariable, t)
	}
	return t, nil
}

// findQEMU returns the QEMU that qemu-build made, and what its -version says.
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

// missing says how to get the QEMU that the environment names.
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
