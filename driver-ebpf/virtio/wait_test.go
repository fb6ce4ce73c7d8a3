// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newWaiter returns a started device with eventfds in place of its uio device, its clock
// and its watch. The test writes to them.
func newWaiter(t *testing.T) *Device {
	t.Helper()
	eventfd := func() int {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	config, err := os.Create(filepath.Join(t.TempDir(), "config"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { config.Close() })
	const command = commandMemory | commandMaster
	if _, err := config.WriteAt([]byte{command, 0}, pciCommand); err != nil {
		t.Fatal(err)
	}
	d := &Device{
		function: &pciFunction{uio: eventfd(), config: config, command: command},
		common:   make(registers, commonConfigSize),
		isr:      make(registers, 1),
		wake:     eventfd(),
		clock:    eventfd(),
		watch:    eventfd(),

		lookAfter: lookMax,
	}
	d.Start()
	return d
}

// patience is the longest time for a wait that would not end if the code were wrong.
const patience = 10 * time.Second

func raise(t *testing.T, fd int) {
	t.Helper()
	if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
}

func TestWaitAfterTheClockWasSet(t *testing.T) {
	d := newWaiter(t)
	raise(t, d.clock)
	if changed, err := d.Wait(patience); !changed || err != nil {
		t.Fatalf("changed %v, error %v: the device is not looked at", changed, err)
	}
	if err := d.Healthy(); err != nil {
		t.Fatalf("a device that is well: %v", err)
	}
	if changed, err := d.Wait(time.Millisecond); changed || err != nil {
		t.Fatalf("changed %v, error %v: the same news again", changed, err)
	}
}

func TestWaitLosesNothingThatComesWithTheClock(t *testing.T) {
	d := newWaiter(t)
	raise(t, d.clock)
	raise(t, d.wake)
	if _, err := d.Wait(patience); !errors.Is(err, ErrInterrupted) {
		t.Fatalf("error %v, want ErrInterrupted", err)
	}
	if changed, err := d.Wait(patience); !changed || err != nil {
		t.Fatalf("changed %v, error %v", changed, err)
	}
}

// The kernel accepts the timer. While nobody sets the clock, nothing is reported.
func TestClockThatIsNotSetReportsNothing(t *testing.T) {
	fd, err := openClock()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if n != 0 || err != nil {
		t.Fatalf("%d events, error %v", n, err)
	}
}

func TestDeviceErrorsFollowFromTheStatusRegister(t *testing.T) {
	const started = statusAcknowledge | statusDriver | statusFeaturesOK | statusDriverOK
	for name, c := range map[string]struct {
		status uint8
		want   error
	}{
		"started":                      {started, nil},
		"asks for a reset":             {started | statusNeedsReset, ErrNeedsReset},
		"failed":                       {started | statusFailed, ErrNeedsReset},
		"was reset":                    {0, ErrNeedsReset},
		"was stopped by a bus command": {started &^ statusDriverOK, ErrNeedsReset},
		"unplugged":                    {statusGone, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			d := newWaiter(t)
			d.common.write8(regStatus, c.status)
			if err := d.Healthy(); !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
		})
	}
}
