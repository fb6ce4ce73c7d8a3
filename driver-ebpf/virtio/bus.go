// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pciFunction is a PCI device that is bound to uio_pci_generic and opened.
type pciFunction struct {
	host    host
	bdf     string
	config  *os.File // configuration space, of openConfig
	uio     int      // fd of /dev/uioN, non-blocking
	command uint16   // what the command register shall have: INTx on
	bars    [pciBARs][]byte
}

// lastFD is above what this process has other descriptors for.
const lastFD = 512

// openLast opens the device so that the kernel closes it first when the process
// is killed. Closing it ends bus mastering, and the memory of the rings must not
// go to others before. The kernel runs what is left to do of closed files in
// reverse (task_work_run() in kernel/task_work.c), so it is the highest
// descriptor that counts, and not the one opened first.
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

// openConfig opens the configuration space of a device that no other process
// drives, and keeps others away until it is closed. Nothing else would: each
// file of the uio device ends bus mastering when it is closed, and any process
// can take the device from its driver.
func openConfig(h host, bdf string) (*os.File, error) {
	config, err := os.OpenFile(h.device(bdf, "config"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(config.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process drives %s: %w", bdf, os.NewSyscallError("flock", err)), config.Close())
	}
	return config, nil
}

func openFunction(h host, bdf string) (_ *pciFunction, err error) {
	config, err := openConfig(h, bdf)
	if err != nil {
		return nil, err
	}
	if err = h.ensureUIO(); err == nil {
		err = h.bind(bdf)
	}
	if err != nil {
		return nil, errors.Join(err, config.Close())
	}
	f := &pciFunction{host: h, bdf: bdf, config: config, uio: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	path, err := h.uioPath(bdf)
	if err != nil {
		return nil, err
	}
	if f.uio, err = openLast(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	var command [2]byte
	if _, err := f.config.ReadAt(command[:], pciCommand); err != nil {
		return nil, fmt.Errorf("read PCI command register: %w", err)
	}
	f.command = binary.LittleEndian.Uint16(command[:])
	f.command |= commandMemory | commandMaster
	f.command &^= commandNoINTx
	if err := f.enableInterrupt(); err != nil {
		return nil, fmt.Errorf("%w (refused under lockdown)", err)
	}
	return f, nil
}

// capabilities reads the virtio capabilities.
func (f *pciFunction) capabilities() (capabilities, error) {
	config := make([]byte, pciConfigLegacy)
	n, err := f.config.ReadAt(config, 0)
	if n < pciConfigMin {
		return capabilities{}, fmt.Errorf("read PCI configuration of %s: %d bytes: %w", f.bdf, n, err)
	}
	return parseCapabilities(config[:n])
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
		bar, err = unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map %s (refused under lockdown): %w", path, os.NewSyscallError("mmap", err))
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
	if _, err := os.Stat(f.host.device(f.bdf)); err == nil {
		errs = append(errs, f.host.unbind(f.bdf))
	}
	return errors.Join(append(errs, f.config.Close())...) // last: others may have the device now
}
