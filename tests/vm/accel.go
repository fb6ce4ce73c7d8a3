// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
)

// Accel is how QEMU runs the guest's code.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm"
	TCG Accel = "tcg"
)

// cpu returns the processor model that goes with the accelerator.
func (a Accel) cpu() string {
	if a == KVM {
		return "host"
	}
	// Emulation does a string instruction byte by byte, which the kernel and Go
	// prefer where they are said to be fast: filling memory takes several
	// times as long.
	return "max,-erms,-fsrm"
}

// bootAttempts is how often an emulated guest may be lost before it is ready.
const bootAttempts = 3

// ErrHung is wrapped by what boot returns to [RetryBoot] when the guest neither
// became ready in time nor died.
var ErrHung = errors.New("the guest hangs")

// RetryBoot calls boot, and again when the guest died or hung in it and is emulated.
//
// Two things go wrong under emulation with several CPUs. While a kernel starts it
// patches its own code. Now and then QEMU's TCG runs the breakpoint that guards a
// patch after it is gone, and the kernel ends in an "Oops: int3" that no real
// processor causes. Or, on a busy host, a processor never gets another interrupt
// of its timer, and the kernel tells of stalls for ever.
//
// lost is called with the reason before each further attempt.
func RetryBoot(a Accel, lost func(error), boot func() error) error {
	for attempt := 1; ; attempt++ {
		err := boot()
		again := errors.Is(err, ctl.ErrClosed) || errors.Is(err, ErrHung)
		if err == nil || a != TCG || attempt == bootAttempts || !again {
			return err
		}
		lost(err)
	}
}

// probeTimeout is how long a guest gets to boot under KVM; it takes a second.
const probeTimeout = 30 * time.Second

// DetectAccel returns KVM where a Linux guest boots under it, and TCG
// elsewhere. A /dev/kvm that opens says little: it may be there and unable to
// run more than toy guests. So a guest is booted, once, and what came of it is
// remembered for this machine's uptime, QEMU and kernel. FBPP_ACCEL decides instead
// when it is set.
func DetectAccel(ctx context.Context, c Config) (Accel, error) {
	switch a := Accel(os.Getenv("FBPP_ACCEL")); a {
	case KVM, TCG:
		return a, nil
	case "":
	default:
		return "", fmt.Errorf("detect the accelerator: FBPP_ACCEL is %q, neither %s nor %s", a, KVM, TCG)
	}
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil || !virtualizes() {
		return TCG, nil
	}
	cache, err := guest.CacheDir()
	if err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("detect the accelerator: %w", err)
	}
	key := sha256.Sum256([]byte(strings.Join([]string{string(boot), c.QEMU, c.Kernel.Version}, "\n")))
	file := filepath.Join(cache, "accel-"+hex.EncodeToString(key[:6]))
	if known, err := os.ReadFile(file); err == nil {
		return Accel(known), nil
	}
	found := TCG
	if bootsUnder(ctx, c, KVM) {
		found = KVM
	}
	// Only a full write may be read by another process.
	temporary := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(temporary, []byte(found), 0o644); err != nil {
		return "", fmt.Errorf("remember the accelerator: %w", err)
	}
	return found, os.Rename(temporary, file)
}

// virtualizes tells whether the processor says that it has what KVM needs.
func virtualizes() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(info) {
		if !bytes.HasPrefix(line, []byte("flags")) {
			continue
		}
		for flag := range bytes.FieldsSeq(line) {
			if string(flag) == "vmx" || string(flag) == "svm" {
				return true
			}
		}
		return false
	}
	return false
}

// bootsUnder tells whether the guest boots.
func bootsUnder(ctx context.Context, c Config, a Accel) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c.Accel, c.Backend, c.MemoryMiB = a, "", 256
	v, err := Start(ctx, c)
	if err != nil {
		return false
	}
	defer v.Close()
	_, err = v.Boot(ctx)
	return err == nil
}
