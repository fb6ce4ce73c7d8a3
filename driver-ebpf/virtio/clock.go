// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// openClock returns a timer that tells of a suspend of the guest. A suspend clears bus mastering
// and DRIVER_OK without an interrupt. The timer never expires, but becomes readable when the
// kernel's clock is set, as a resume does (timerfd_resume() in fs/timerfd.c). Slewing the clock
// does not make it readable.
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
