// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	field "github.com/fbpp-project/fbpp/cmd/fbppctl/report"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

// origin is the host and the programs with which figures were made.
type origin struct {
	Command  string `json:"command"`
	Commit   string `json:"commit"`   // of the checkout, "+" after it with changes
	Programs string `json:"programs"` // a digest of fbppd and of what the guest runs
	QEMU     string `json:"qemu"`
	Kernel   string `json:"guest_kernel"`
	Accel    string `json:"accelerator"`
	Host     string `json:"host_kernel"`
	CPU      string `json:"cpu"`
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memory_mib"`
}

// describe returns the origin of figures that are made now.
func describe(
	ctx context.Context, parts *lab.Lab, series guest.Series, args []string,
) (origin, error) {
	here := field.ThisHost()
	programs, err := digest(parts, series)
	if err != nil {
		return origin{}, fmt.Errorf("read the programs: %w", err)
	}
	return origin{
		Command: strings.Join(append([]string{"go run ./tests/bench"}, args...), " "),
		Commit:  commit(ctx, parts.Root), Programs: programs,
		QEMU: parts.Version, Kernel: parts.Kernel(series).Version, Accel: string(parts.Accel),
		Host: hostKernel(), CPU: here.CPU, CPUs: here.CPUs, MemoryMB: int(here.MemoryBytes >> 20),
	}, nil
}

// digest tells builds of fbppd and of the guest's files apart.
func digest(parts *lab.Lab, series guest.Series) (string, error) {
	config, err := parts.Config(series, lab.SmallestGuest, nil)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, path := range []string{parts.FBPPD, config.Initramfs} {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum.Write(content) // never fails
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// hostKernel returns the release of the host's kernel.
func hostKernel() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// commit returns the revision of the checkout, with "+" after it when there are
// changes.
func commit(ctx context.Context, root string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "describe",
		"--always", "--abbrev=12", "--dirty=+", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
