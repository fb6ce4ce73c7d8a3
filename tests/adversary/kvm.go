// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Of linux/kvm.h.
const (
	kvmCheckExtension       = 0xae03
	kvmCapManualDirtyLog2   = 168
	kvmCapDirtyRing         = 192
	kvmCapDirtyRingAcqRel   = 223
	kvmDirtyLogInitiallySet = 2
)

// missingFromKVM returns an error that names what this host's KVM lacks, or nil. With
// ring, KVM needs the dirty ring. Else it needs the dirty log in which a page is not
// write-protected before it is first cleared: arming is for that log.
func missingFromKVM(ring bool) error {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer kvm.Close()
	if ring {
		if extension(kvm, kvmCapDirtyRing) == 0 && extension(kvm, kvmCapDirtyRingAcqRel) == 0 {
			return errors.New("KVM has no dirty ring")
		}
		return nil
	}
	if log := extension(kvm, kvmCapManualDirtyLog2); log&kvmDirtyLogInitiallySet == 0 {
		return fmt.Errorf("KVM has no KVM_DIRTY_LOG_INITIALLY_SET: its capability is %#x", log)
	}
	return nil
}

// extension returns KVM's value for a capability, or 0 if KVM does not know it.
func extension(kvm *os.File, capability uintptr) uintptr {
	value, _, errno := unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), kvmCheckExtension, capability)
	if errno != 0 {
		return 0
	}
	return value
}
