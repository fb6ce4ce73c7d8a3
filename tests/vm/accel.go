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

// Accel is the accelerator with which QEMU runs the guest's code.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm"
	TCG Accel = "tcg"
)

// cpu returns the processor model to use with the accelerator, as in QEMU's -cpu.
func (a Accel) cpu(target guest.Arch) string {
	if a == KVM {
		return "host"
	}
	if target == guest.AArch64 {
		// It has pages of each size. Its pointer authentication is QEMU's own hash, which
		// takes a fraction of the time of Arm's.
		return "max,pauth-impdef=on"
	}
	// TCG runs string instructions byte by byte. The kernel and Go prefer these
	// where the processor has the flags erms or fsrm, and then fill memory several
	// times slower.
	return "max,-erms,-fsrm"
}

// bootAttempts is how often an emulated guest is booted before RetryBoot gives up.
const bootAttempts = 3

// ErrHung says that a guest neither became ready in time nor died. The boot function
// of [RetryBoot] wraps it.
var ErrHung = errors.New("the guest hangs")

// RetryBoot calls boot. If an emulated guest died or hung meanwhile, it calls boot
// again, three times in all, and lost with the reason before each further attempt. It
// returns the last error of boot.
//
// Two things go wrong under emulation with several CPUs. A kernel patches its own
// code while it starts. Now and then QEMU's TCG executes the breakpoint that guards a
// patch after the breakpoint is gone. The kernel then ends in an "Oops: int3", which
// no real processor causes. Or, on a busy host, a processor gets no more timer
// interrupts, and the kernel reports stalls for ever.
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

// probeTimeout is how long a guest may take to boot under KVM. It takes about a
// second.
const probeTimeout = 30 * time.Second

// DetectAccel returns KVM if a Linux guest boots under it, and else TCG. It boots a
// guest to find out, because a /dev/kvm that opens may still be unable to run Linux.
// The result is cached for this QEMU and guest kernel, until the host reboots.
// FBPP_ACCEL overrides it: it is an error if that is neither kvm nor tcg.
func DetectAccel(ctx context.Context, c Config) (Accel, error) {
	switch a := Accel(os.Getenv("FBPP_ACCEL")); a {
	case KVM, TCG:
		return a, nil
	case "":
	default:
		return "", fmt.Errorf("detect the accelerator: FBPP_ACCEL is %q, neither %s nor %s", a, KVM, TCG)
	}
	if c.Target == guest.AArch64 || unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil ||
		!virtualizes() {
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
	// The rename ensures that other processes read the whole result or none.
	temporary := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(temporary, []byte(found), 0o644); err != nil {
		return "", fmt.Errorf("remember the accelerator: %w", err)
	}
	return found, os.Rename(temporary, file)
}

// virtualizes tells whether the processor has the flags vmx or svm.
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

// bootsUnder tells whether the guest boots with an accelerator within probeTimeout.
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
