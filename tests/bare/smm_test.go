// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// tseg is where the last MiB of the machine's memory begins, which firmware can give to system
// management mode.
const tseg = 63 << 20

// reserveTSEG gives the last MiB to system management mode, by the registers SMRAM and ESMRAMC of
// the host bridge (Intel's datasheet of the 82Q35, 5.1.31 and 5.1.32).
func (m *machine) reserveTSEG() {
	m.t.Helper()
	m.do("outl 0xcf8 %#x", 0x8000009c)
	m.do("outb 0xcfd 0xa") // SMRAM: G_SMRAME, C_BASE_SEG
	m.do("outb 0xcfe 0x1") // ESMRAMC: T_EN, 1 MiB
}

// Memory of system management mode is no RAM to the guest, and so not the guest's to give away:
// otherwise a kernel could have the firmware emptied, which guards it under Secure Boot.
func TestMemoryOfSystemManagementModeIsNotSkipped(t *testing.T) {
	for name, want := range map[string]string{"RAM": "ok", "TSEG": "bad-ranges"} {
		t.Run(name, func(t *testing.T) {
			m, dst, p := peeks(t, protocol.WindowFeaturePeek, nil)
			m.fill(tseg, pageSize, 0x77)
			if name == "TSEG" {
				m.reserveTSEG()
				if got := m.number("readb %#x", tseg); got == 0x77 {
					t.Fatal("the guest still sees it")
				}
			}
			m.begin(dst)
			m.awaitAsked(p).publish(protocol.AnswerOK, looked, freeset.Range{GPA: tseg, Length: pageSize})
			if got := m.end(dst).HintStatus(); got != want {
				t.Errorf("hints ended with status %q, want %q", got, want)
			}
		})
	}
}
