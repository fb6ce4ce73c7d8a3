// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pciFunction is a PCI device that is bound to uio_pci_generic and opened.
type pciFunction struct {
	host    host
	bdf     string
	was     binding  // before it was taken
	config  *os.File // configuration space, of openConfig
	caps    capabilities
	path    string // of /dev/uioN
	uio     int    // fd of it, non-blocking
	command uint16 // value for the command register, with INTx enabled
	bars    [pciBARs][]byte
}

// lastFD is above the other descriptors of this process.
const lastFD = 512

// openLast opens the device with a descriptor above all others. If the process is killed, the
// kernel then closes this descriptor first: it releases a process's files in reverse order
// (task_work_run() in kernel/task_work.c). The close ends bus mastering, which has to happen
// before the memory of the rings is freed.
func openLast(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lastFD)
	if err != nil {
		return fd, nil // the limit of descriptors does not allow lastFD
	}
	return last, unix.Close(fd)
}

// openConfig opens the configuration space of a device, and locks it against a second instance of
// this driver. The kernel would not prevent that: root may open a uio device several times, and
// take a PCI device from its driver.
func openConfig(h host, bdf string) (*os.File, error) {
	config, err := os.OpenFile(h.device(bdf, "config"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(config.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("another process drives %s: %w", bdf, os.NewSyscallError("flock", err))
		return nil, errors.Join(err, config.Close())
	}
	return config, nil
}

// openFunction checks a device's identity, and takes the device from its driver. After an error
// the driver has it again.
func openFunction(h host, bdf string, id ID) (_ *pciFunction, err error) {
	config, err := openConfig(h, bdf)
	if err != nil {
		return nil, err
	}
	f := &pciFunction{host: h, bdf: bdf, config: config, uio: -1}
	if f.caps, err = readCapabilities(config, id); err == nil {
		err = h.ensureUIO()
	}
	if err == nil {
		f.was, err = h.take(bdf)
	}
	if err != nil {
		return nil, errors.Join(err, config.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.path, err = h.uioPath(bdf); err != nil {
		return nil, err
	}
	if f.uio, err = openLast(f.path); err != nil {
		return nil, fmt.Errorf("open %s: %w", f.path, err)
	}
	if f.command, err = f.readCommand(); err != nil {
		return nil, err
	}
	f.command |= commandMemory | commandMaster
	f.command &^= commandNoINTx
	if err := f.enableInterrupt(); err != nil {
		return nil, fmt.Errorf("%w (refused under lockdown)", err)
	}
	return f, nil
}

// readCapabilities reads the virtio structures from a device's configuration space. It is an error
// if the device has another identity.
func readCapabilities(config io.ReaderAt, id ID) (capabilities, error) {
	space := make([]byte, pciConfigLegacy)
	n, err := config.ReadAt(space, 0)
	if n < pciConfigMin {
		return capabilities{}, fmt.Errorf("read PCI configuration: %d bytes: %w", n, err)
	}
	le := binary.LittleEndian
	if got := (ID{le.Uint16(space[pciVendor:]), le.Uint16(space[pciDevice:])}); got != id {
		return capabilities{}, fmt.Errorf("the device is %v, not %v: %w", got, id, ErrOtherDevice)
	}
	return parseCapabilities(space[:n])
}

// structure maps the BAR of a location, and returns the registers there.
func (f *pciFunction) structure(where location) (registers, error) {
	bar := f.bars[where.bar]
	if bar == nil {
		path := f.host.device(f.bdf, fmt.Sprintf("resource%d", where.bar))
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("map BAR %d: %w", where.bar, err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		const prot = unix.PROT_READ | unix.PROT_WRITE
		bar, err = unix.Mmap(int(file.Fd()), 0, int(info.Size()), prot, unix.MAP_SHARED)
		if err != nil {
			err = os.NewSyscallError("mmap", err)
			return nil, fmt.Errorf("map %s (refused under lockdown): %w", path, err)
		}
		f.bars[where.bar] = bar
	}
	end := uint64(where.offset) + uint64(where.length)
	if end > uint64(len(bar)) {
		return nil, fmt.Errorf("map BAR %d: structure ends at %#x of %#x", where.bar, end, len(bar))
	}
	return registers(bar[where.offset:end:end]), nil
}

// enableInterrupt enables INTx again in the command register. uio_pci_generic disables it there
// after each interrupt.
func (f *pciFunction) enableInterrupt() error {
	var command [2]byte
	binary.LittleEndian.PutUint16(command[:], f.command)
	if _, err := unix.Pwrite(int(f.config.Fd()), command[:], pciCommand); err != nil {
		return fmt.Errorf("write PCI command register: %w", os.NewSyscallError("pwrite", err))
	}
	return nil
}

// clearInterrupt reads the count of interrupts from the uio file, so that poll waits again.
func (f *pciFunction) clearInterrupt() error {
	var count [4]byte
	_, err := unix.Read(f.uio, count[:])
	if err == nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	return fmt.Errorf("read uio: %w", errors.Join(ErrGone, os.NewSyscallError("read", err)))
}

// close closes the device and restores its old binding.
func (f *pciFunction) close() error {
	var errs []error
	for i, bar := range f.bars {
		if bar != nil {
			errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(bar)))
			f.bars[i] = nil
		}
	}
	if f.uio >= 0 {
		errs = append(errs, os.NewSyscallError("close", unix.Close(f.uio)))
	}
	errs = append(errs, f.host.giveBack(f.bdf, f.was))
	return errors.Join(append(errs, f.config.Close())...) // last, as it unlocks the device
}
