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

// Other programs can disturb a device without an interrupt. If one closes the uio device, bus
// mastering ends (release() in drivers/uio/uio_pci_generic.c). setpci writes the command register,
// and sysfs can reset the device. So the driver watches the device's files, and checks the device
// after another program has used them: soon, and then ever more rarely, because the kernel reports
// the use before its effect. It also checks once a minute, for disturbances by other ways.
const (
	lookMin = 50 * time.Millisecond
	lookMax = time.Minute
)

// openWatch returns a descriptor that becomes readable when somebody closes the
// uio device, or a file in the device's folder that was open for writing.
func openWatch(uio, folder string) (fd int, err error) {
	if fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return -1, fmt.Errorf("watch the device: %w", os.NewSyscallError("inotify_init1", err))
	}
	_, err1 := unix.InotifyAddWatch(fd, uio, unix.IN_CLOSE)
	_, err2 := unix.InotifyAddWatch(fd, folder, unix.IN_CLOSE_WRITE)
	if err := errors.Join(err1, err2); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("watch the device: %w", os.NewSyscallError("inotify_add_watch", err))
	}
	return fd, nil
}

// drainWatch reads all events of a watch.
func drainWatch(fd int) {
	var events [4096]byte
	for {
		if n, err := unix.Read(fd, events[:]); n <= 0 || err != nil {
			return
		}
	}
}

// look checks that the device is still as it was set up, and returns an error as [Device.Healthy]
// does if not. If another program has disabled INTx, the next Wait enables it again.
func (d *Device) look() error {
	d.lookAfter = min(2*d.lookAfter, lookMax)
	if err := d.Healthy(); err != nil {
		return err
	}
	command, err := d.function.readCommand()
	if err != nil {
		return err
	}
	const needed = commandMemory | commandMaster
	if command&needed != needed {
		return fmt.Errorf("PCI command register %#x: %w", command, ErrNeedsReset)
	}
	// uio_pci_generic may have set the bit as well, because of an interrupt just now.
	d.masked = d.masked || command&commandNoINTx != 0
	return nil
}

// readCommand reads the PCI command register.
func (f *pciFunction) readCommand() (uint16, error) {
	var command [2]byte
	if _, err := f.config.ReadAt(command[:], pciCommand); err != nil {
		return 0, fmt.Errorf("read PCI command register: %w", err)
	}
	return binary.LittleEndian.Uint16(command[:]), nil
}
