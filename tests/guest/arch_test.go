// SPDX-License-Identifier: Apache-2.0

package guest

import "testing"

func TestTargetWithoutGuestsIsRefused(t *testing.T) {
	for value, want := range map[string]Arch{
		"": X86_64, "x86_64": X86_64, "aarch64": AArch64, "sparc": "", "arm64": "", "amd64": "",
	} {
		t.Setenv(archVariable, value)
		if got, err := Target(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", value, got, err, want)
		}
	}
}
