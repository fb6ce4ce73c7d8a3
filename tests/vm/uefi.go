// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"os"
	"path/filepath"
)

// UEFI is firmware in flash memory of a q35 machine. It boots the guest from a disk. Only code in
// system management mode writes to the flash, so the guest cannot switch Secure Boot off.
type UEFI struct {
	Code      string // path of the firmware's image
	Variables string // path of the image of its variables; a VM writes to a copy
	Disk      string // path of the disk's raw image, which VMs only read
}

// variablesFile is the copy of the variables in a VM's folder.
const variablesFile = "vars.fd"

// args returns QEMU's arguments for the firmware and the disk.
func (u *UEFI) args(dir string) []string {
	return []string{
		"-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + u.Code,
		"-drive", "if=pflash,format=raw,unit=1,file=" + filepath.Join(dir, variablesFile),
		"-drive", "if=none,id=boot,format=raw,readonly=on,file=" + u.Disk,
		"-device", "virtio-blk-pci,drive=boot,bootindex=0",
	}
}

// copyVariables puts the variables into a VM's folder.
func (u *UEFI) copyVariables(dir string) error {
	content, err := os.ReadFile(u.Variables)
	if err != nil {
		return fmt.Errorf("copy the firmware's variables: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, variablesFile), content, 0o600)
}
