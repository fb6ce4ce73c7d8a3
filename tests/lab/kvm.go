// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"testing"

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

// NeedKVM skips a test if this host cannot run its bare-metal guest under KVM, and
// says what is missing. No package can install that. With FBPP_REQUIRE_KVM set the
// test fails instead. ring is as in missingFromKVM.
func NeedKVM(t testing.TB, ring bool) {
	t.Helper()
	err := missingFromKVM(ring)
	switch {
	case err == nil:
	case os.Getenv("FBPP_REQUIRE_KVM") != "":
		t.Fatal(err)
	default:
		t.Skipf("not run: %v", err)
	}
}

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
