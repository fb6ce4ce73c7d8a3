// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// RAMBytes returns the current size of the guest's memory in bytes. Hotplug and a balloon
// change it.
func RAMBytes() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, os.NewSyscallError("sysinfo", err)
	}
	return uint64(info.Totalram) * uint64(info.Unit), nil
}

// maxRecords is the number of records after which a walk that begins now is cut: one for
// each page. Without it a walk that keeps finding the same blocks would never end. The last
// step adds at most as many again, which [FBPP-REP-7] allows.
func (a *Agent) maxRecords() uint64 {
	bytes, err := a.ram()
	if err != nil {
		a.lg.Warn("look at the size of memory", zap.Error(err))
	}
	return max(bytes, a.guest.Hello.RAMBytes) >> a.guest.PageShift
}
