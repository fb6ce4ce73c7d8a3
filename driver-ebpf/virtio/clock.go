// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// openClock returns a timer that never expires. It becomes readable when the
// kernel's clock is set, and a resume sets it (timerfd_resume() in fs/timerfd.c).
// A suspend takes bus mastering and DRIVER_OK away, and no interrupt tells of it.
// A clock that is only slewed stays silent.
func openClock() (int, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("create timer: %w", os.NewSyscallError("timerfd_create", err))
	}
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt64}}
	const flags = unix.TFD_TIMER_ABSTIME | unix.TFD_TIMER_CANCEL_ON_SET
	if err := unix.TimerfdSettime(fd, flags, &never, nil); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("arm timer: %w", os.NewSyscallError("timerfd_settime", err))
	}
	return fd, nil
}
