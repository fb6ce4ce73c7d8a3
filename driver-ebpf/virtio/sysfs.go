// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

const uioDriver = "uio_pci_generic"

// host is where the kernel shows its devices; tests show their own.
type host struct {
	sys string // sysfs
	dev string // device nodes
}

func realHost() host { return host{sys: "/sys", dev: "/dev"} }

func (h host) device(bdf string, elem ...string) string {
	return filepath.Join(append([]string{h.sys, "bus/pci/devices", bdf}, elem...)...)
}

// Find returns the PCI addresses of all devices with that identity, sorted.
func Find(vendor, device uint16) ([]string, error) { return realHost().find(vendor, device) }

func (h host) find(vendor, device uint16) ([]string, error) {
	entries, err := os.ReadDir(h.device(""))
	if err != nil {
		return nil, fmt.Errorf("list PCI devices: %w", err)
	}
	var found []string
	for _, entry := range entries {
		v, err1 := h.readHex(entry.Name(), "vendor")
		d, err2 := h.readHex(entry.Name(), "device")
		if err := errors.Join(err1, err2); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // unplugged meanwhile
			}
			return nil, err
		}
		if v == uint64(vendor) && d == uint64(device) {
			found = append(found, entry.Name())
		}
	}
	sort.Strings(found)
	return found, nil
}

func (h host) readHex(bdf, attribute string) (uint64, error) {
	text, err := os.ReadFile(h.device(bdf, attribute))
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 0, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s of %s: %w", attribute, bdf, err)
	}
	return value, nil
}

// driver returns the name of the driver that a device is bound to, "" for none.
func (h host) driver(bdf string) (string, error) {
	target, err := os.Readlink(h.device(bdf, "driver"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return filepath.Base(target), nil
}

// bind gives the device to uio_pci_generic, taking it from another driver. The
// driver's module is there. Only this one device is touched: driver_override
// claims no others by their identity, as new_id would.
func (h host) bind(bdf string) error {
	current, err := h.driver(bdf)
	if err != nil {
		return fmt.Errorf("bind %s: %w", bdf, err)
	}
	if current == uioDriver {
		return nil
	}
	if err := h.write(h.device(bdf, "driver_override"), uioDriver); err != nil {
		return fmt.Errorf("bind %s to %s: %w", bdf, uioDriver, err)
	}
	if current != "" {
		if err := h.write(h.device(bdf, "driver/unbind"), bdf); err != nil {
			return fmt.Errorf("take %s from %s: %w", bdf, current, err)
		}
	}
	if err := h.write(filepath.Join(h.sys, "bus/pci/drivers_probe"), bdf); err != nil {
		return fmt.Errorf("bind %s to %s: %w", bdf, uioDriver, err)
	}
	if current, err = h.driver(bdf); err != nil || current != uioDriver {
		return errors.Join(fmt.Errorf("bind %s to %s: the driver did not take it (has it an interrupt line?)", bdf, uioDriver), err)
	}
	return nil
}

// unbind takes the device from uio_pci_generic again and lets other drivers
// have it from now on.
func (h host) unbind(bdf string) error {
	override := h.write(h.device(bdf, "driver_override"), "\n")
	return errors.Join(override, h.write(h.device(bdf, "driver/unbind"), bdf))
}

// uioPatience bounds the wait for devtmpfs or udev to make a device node.
const uioPatience = time.Second

// uioPath returns the device node of the interrupt of a bound device.
func (h host) uioPath(bdf string) (string, error) {
	entries, err := os.ReadDir(h.device(bdf, "uio"))
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "uio") {
		return "", errors.Join(fmt.Errorf("find the uio device of %s: %d entries", bdf, len(entries)), err)
	}
	path := filepath.Join(h.dev, entries[0].Name())
	for waited := time.Duration(0); ; waited += uioPatience / 20 {
		if _, err = os.Stat(path); err == nil || waited >= uioPatience {
			return path, err
		}
		time.Sleep(uioPatience / 20)
	}
}

func (h host) write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
