// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Forever makes Wait wait without a limit.
const Forever time.Duration = -1

// Wait blocks until the device interrupts. It also returns after limit, and may return earlier;
// neither is an error. The caller then checks its queues. configChanged says that the device's
// configuration or status may have changed. That is also so after the guest was suspended, or its
// clock was set. The error wraps [ErrNeedsReset] if another program has made the device unusable,
// and [ErrInterrupted] after Interrupt.
//
// Wait blocks the calling thread in the kernel instead of using the runtime's poller. With the
// poller, another thread would have to wake the thread that the goroutine is locked to. That would
// add a second context switch between the interrupt and the walk.
func (d *Device) Wait(limit time.Duration) (configChanged bool, err error) {
	fds := []unix.PollFd{
		{Fd: int32(d.function.uio), Events: unix.POLLIN},
		{Fd: int32(d.wake), Events: unix.POLLIN},
		{Fd: int32(d.clock), Events: unix.POLLIN},
		{Fd: int32(d.watch), Events: unix.POLLIN}, // ignored where there is none
	}
	// INTx is enabled only now, and not right after the interrupt, because that takes
	// an exit to the host, and the interrupt's cause was more urgent. If the device has
	// raised INTx since its status was read, the interrupt fires at once.
	if d.masked {
		if err := d.function.enableInterrupt(); err != nil {
			return false, err
		}
		d.masked = false
	}
	look := limit < 0 || limit > d.lookAfter
	if look {
		limit = d.lookAfter
	}
	timeout := unix.NsecToTimespec(limit.Nanoseconds())
	n, err := unix.Ppoll(fds, &timeout, nil)
	switch {
	case err == nil && n == 0 && look:
		return false, d.look()
	case errors.Is(err, unix.EINTR) || err == nil && n == 0:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("wait for the device: %w", os.NewSyscallError("ppoll", err))
	case fds[1].Revents != 0:
		var count [8]byte
		_, _ = unix.Read(d.wake, count[:])
		return false, ErrInterrupted
	case fds[0].Revents&^unix.POLLIN != 0: // POLLERR, POLLHUP: the device was unbound
		return false, fmt.Errorf("wait for the device: uio events %#x: %w", fds[0].Revents, ErrGone)
	case fds[2].Revents != 0:
		var count [8]byte
		_, _ = unix.Read(d.clock, count[:]) // ECANCELED: the clock was set
		return true, nil
	case fds[3].Revents != 0:
		drainWatch(d.watch)
		d.lookAfter = lookMin / 2
		return false, d.look()
	}
	if err := d.function.clearInterrupt(); err != nil {
		return false, err
	}
	d.masked = true
	// Reading the ISR status deasserts INTx. Chains that the device uses from here on
	// assert it again.
	isr := d.isr.read8(0)
	if isr == statusGone {
		return false, ErrGone
	}
	return isr&isrConfig != 0, nil
}

// Interrupt makes the current or the next Wait return an error that wraps [ErrInterrupted]. It may
// be called from any goroutine at any time. After Close it does nothing.
func (d *Device) Interrupt() {
	d.wakeMu.Lock()
	defer d.wakeMu.Unlock()
	if d.wake < 0 {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// EAGAIN means that the counter is full: the wait ends anyway.
	_, _ = unix.Write(d.wake, one[:])
}

// Close resets the device, so that it no longer uses the queues' memory, and returns it to its old
// driver. No Wait may be under way.
func (d *Device) Close() error {
	var errs []error
	if d.common != nil && d.common.read8(regStatus) != statusGone {
		errs = append(errs, d.reset())
	}
	d.common, d.notify, d.isr, d.config, d.queues = nil, nil, nil, nil, nil
	if d.function != nil {
		errs = append(errs, d.function.close())
		d.function = nil
	}
	for _, region := range d.memory {
		errs = append(errs, region.Close())
	}
	d.memory = nil
	for _, fd := range []*int{&d.clock, &d.watch} {
		if *fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(*fd)))
			*fd = -1
		}
	}
	d.wakeMu.Lock()
	defer d.wakeMu.Unlock()
	if d.wake >= 0 {
		errs = append(errs, os.NewSyscallError("close", unix.Close(d.wake)))
		d.wake = -1
	}
	return errors.Join(errs...)
}
