// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
)

// The firmware boots the kernel, and no VM writes to what another one uses.
func TestArgsOfAGuestThatFirmwareBoots(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, []byte("keys"), 0o400); err != nil {
		t.Fatal(err)
	}
	u := &UEFI{Code: "/code", Variables: image, Disk: "/disk"}
	c := Config{
		UEFI: u, Kernel: &guest.Kernel{Image: "/k"}, MemoryMiB: 256, Append: []string{"loglevel=7"},
	}
	line := commandLine("q", c.args(dir, false))
	for _, want := range []string{
		"readonly=on,file=/code ", "readonly=on,file=/disk ", "unit=1,file=" + dir + "/vars.fd ",
		"secure,value=on ",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
	if strings.Contains(line, "/k") || strings.Contains(line, image) {
		t.Errorf("QEMU loads the kernel, or writes to the image: %s", line)
	}
	if got := c.KernelLine(); !strings.HasSuffix(got, " loglevel=7") {
		t.Errorf("the kernel's line is %q", got)
	}
	if err := u.copyVariables(dir); err != nil {
		t.Fatal(err)
	}
	if copied, err := os.ReadFile(filepath.Join(dir, "vars.fd")); string(copied) != "keys" {
		t.Errorf("the copy is %q: %v", copied, err)
	}
}
