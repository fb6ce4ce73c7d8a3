// SPDX-License-Identifier: Apache-2.0

//go:build secureboot

// The build tag is for "make test-secureboot".

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// What ends a test that hangs. Firmware is slow to emulate: a boot was seen to take 75 s on a busy
// machine.
const (
	firmwareTimeout     = 15 * time.Minute
	firmwareBootTimeout = 4 * time.Minute
)

// A guest that was booted under Secure Boot locks its kernel down by itself. Its agent reports by
// the serial port. The firmware's flash and its system management mode move along.
func TestGuestUnderSecureBootReports(t *testing.T) {
	for _, series := range guest.AllSeries() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, secureBoot(t, series))
			m.requireSecureBoot()
			m.requireFreeSkippedByPort()
			requireHints(t, m.migrate(), "ok")
			m.requireSound()
		})
	}
}

// secureBoot is a guest of Debian's firmware, boot loaders and kernel, all as they are signed.
func secureBoot(t *testing.T, series guest.Series) setup {
	progress := func(line string) { fmt.Fprintln(os.Stderr, "e2e:", line) }
	signed, err := guest.FetchSecureBoot(t.Context(), series, progress)
	if err != nil {
		t.Fatal(err)
	}
	uefi := &vm.UEFI{
		Code: signed.Code(), Variables: signed.Variables(), Disk: filepath.Join(t.TempDir(), "disk"),
	}
	return setup{
		series: series, memoryMiB: 896, agentPort: true, modules: []string{portModule},
		kernelLine: []string{"loglevel=7"}, // the kernel says what it was booted by
		timeout:    firmwareTimeout, bootTime: firmwareBootTimeout,
		eachSide: func(c *vm.Config) {
			if _, err := os.Stat(uefi.Disk); err != nil {
				err := signed.WriteDisk(t.Context(), uefi.Disk, c.Kernel, c.Initramfs, c.KernelLine())
				if err != nil {
					t.Fatal(err)
				}
			}
			c.UEFI = uefi
		},
	}
}

// requireSecureBoot checks what the kernel said of its boot.
func (m *machine) requireSecureBoot() {
	m.t.Helper()
	console := m.vm.Console()
	for _, want := range []string{
		"Secure boot enabled", "Kernel is locked down from EFI Secure Boot",
	} {
		if !strings.Contains(console, want) {
			m.t.Errorf("the kernel does not say %q; its console:\n%s", want, console)
		}
	}
}
