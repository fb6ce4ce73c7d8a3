// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
)

const (
	pciBus        = "/sys/bus/pci"
	pciCommand    = 0x04 // le16, in configuration space
	commandMemory = 1 << 1
	commandMaster = 1 << 2
	commandNoINTx = 1 << 10
)

// disturbances are ways in which another program of the guest can disturb the fbpp
// device while an agent drives it.
var disturbances = map[string]func(pciDevice) error{
	"uio":      pciDevice.openAndCloseUIO,
	"master":   func(d pciDevice) error { return d.setCommand(commandMaster, 0) },
	"memory":   func(d pciDevice) error { return d.setCommand(commandMemory, 0) },
	"intx":     func(d pciDevice) error { return d.setCommand(0, commandNoINTx) },
	"unbind":   pciDevice.unbind,
	"override": pciDevice.giveToItsDriver,
	"reset":    func(d pciDevice) error { return d.write("1", "reset") },
	"replug":   pciDevice.replug,
}

// disturb runs one of the disturbances.
func disturb(args []string) error {
	if len(args) != 1 || disturbances[args[0]] == nil {
		return fmt.Errorf("expected one of %v, got %q", slices.Sorted(maps.Keys(disturbances)), args)
	}
	d, err := findPCI(protocol.PCIVendorID, protocol.PCIDeviceID)
	if err != nil {
		return err
	}
	return disturbances[args[0]](d)
}

// pciDevice is the folder of a PCI device in sysfs.
type pciDevice string

func findPCI(vendor, device uint16) (pciDevice, error) {
	dirs, err := filepath.Glob(pciBus + "/devices/*")
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		v, err1 := os.ReadFile(filepath.Join(dir, "vendor"))
		d, err2 := os.ReadFile(filepath.Join(dir, "device"))
		if err := errors.Join(err1, err2); err != nil {
			return "", err
		}
		is := fmt.Sprintf("%s %s", bytes.TrimSpace(v), bytes.TrimSpace(d))
		if is == fmt.Sprintf("%#04x %#04x", vendor, device) {
			return pciDevice(dir), nil
		}
	}
	return "", fmt.Errorf("find PCI device %04x:%04x: %w", vendor, device, os.ErrNotExist)
}

func (d pciDevice) write(text string, elem ...string) error {
	f, err := os.OpenFile(filepath.Join(append([]string{string(d)}, elem...)...), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// openAndCloseUIO opens and closes the uio node, as `head /dev/uio0` would. The kernel
// clears bus mastering at the close.
func (d pciDevice) openAndCloseUIO() error {
	nodes, err := os.ReadDir(filepath.Join(string(d), "uio"))
	if err != nil {
		return err
	}
	for _, node := range nodes {
		fd, err := unix.Open(filepath.Join("/dev", node.Name()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// setCommand changes bits of the command register, as setpci does.
func (d pciDevice) setCommand(clearBits, setBits uint16) error {
	f, err := os.OpenFile(filepath.Join(string(d), "config"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var command [2]byte
	if _, err := f.ReadAt(command[:], pciCommand); err != nil {
		return err
	}
	value := binary.LittleEndian.Uint16(command[:])&^clearBits | setBits
	binary.LittleEndian.PutUint16(command[:], value)
	_, err = f.WriteAt(command[:], pciCommand)
	return err
}

func (d pciDevice) unbind() error { return d.write(filepath.Base(string(d)), "driver", "unbind") }

func (d pciDevice) giveToItsDriver() error {
	if err := d.write("\n", "driver_override"); err != nil {
		return err
	}
	if err := d.unbind(); err != nil {
		return err
	}
	return pciDevice(pciBus).write(filepath.Base(string(d)), "drivers_probe")
}

// replug unplugs the device and has the bus find it again.
func (d pciDevice) replug() error {
	if err := d.write("1", "remove"); err != nil {
		return err
	}
	return pciDevice(pciBus).write("1", "rescan")
}
