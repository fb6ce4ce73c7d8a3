// SPDX-License-Identifier: Apache-2.0

//go:build guest

package preflight

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// A kernel without BTF has no /sys/kernel/btf/vmlinux. Here it is hidden from one thread,
// which ends with the test. It has to be the first test of this program: the library keeps
// what it has read once.
func TestGuestWithoutBTFRefuses(t *testing.T) {
	done := make(chan *Result)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		for _, err := range []error{
			unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Mount("none", "/sys/kernel/btf", "tmpfs", 0, ""),
		} {
			if err != nil {
				t.Errorf("hide BTF: %v", err)
				return
			}
		}
		found, err := Run(Options{})
		if err != nil {
			t.Error(err)
			return
		}
		done <- found
	}()
	found := <-done
	if found == nil {
		return
	}
	defer found.Close()
	if found.Guest.Status != protocol.StatusUnsupported || found.Walker() != nil ||
		!strings.Contains(found.Guest.Hello.Reason, "BTF") {
		t.Errorf("status %v, reason %q (%v)", found.Guest.Status, found.Guest.Hello.Reason, found.Err)
	}
}
