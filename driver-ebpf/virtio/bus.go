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
	command uint16 // what the command register shall have: INTx on
	bars    [pciBARs][]byte
}

// lastFD is above what this process has other descriptors for.
const lastFD = 512

// openLast opens the device with a descriptor above all others. When the process
// is killed the kernel then closes this one first: it goes through a dead process's
// files in reverse (task_work_run() in kernel/task_work.c). Closing it ends bus
// mastering, which has to come before the memory of the rings goes to others.
func openLast(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lastFD)
	if err != nil {
		return fd, nil // no process may have so many here
	}
	return last, unix.Close(fd)
}

// openConfig opens the configuration space of a device, and locks it so that a
// second driver stays away. The kernel itself would let it in: anybody may open the
// uio device, and take the PCI device from its driver.
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

// openFunction takes the device from its driver, once it is sure that it is one
// of that identity. After an error the driver has it again.
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

// readCapabilities finds the structures of a device of that identity in its
// configuration space.
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

// structure returns the registers at a location, mapping their BAR.
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

// enableInterrupt lets the interrupt line through again: uio_pci_generic masks
// it in the command register when it fires, and leaves the rest to us.
func (f *pciFunction) enableInterrupt() error {
	var command [2]byte
	binary.LittleEndian.PutUint16(command[:], f.command)
	if _, err := unix.Pwrite(int(f.config.Fd()), command[:], pciCommand); err != nil {
		return fmt.Errorf("write PCI command register: %w", os.NewSyscallError("pwrite", err))
	}
	return nil
}

// clearInterrupt takes the interrupts that have fired from the uio file.
func (f *pciFunction) clearInterrupt() error {
	var count [4]byte
	_, err := unix.Read(f.uio, count[:])
	if err == nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	return fmt.Errorf("read uio: %w", errors.Join(ErrGone, os.NewSyscallError("read", err)))
}

// close gives the device back.
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
	return errors.Join(append(errs, f.config.Close())...) // last: others may have the device now
}
