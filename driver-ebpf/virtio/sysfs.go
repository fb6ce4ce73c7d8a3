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

// host has the folders in which the kernel shows its devices. Tests use folders of their own.
type host struct {
	sys   string // sysfs
	dev   string // device nodes
	write func(path, text string) error
}

func realHost() host { return host{sys: "/sys", dev: "/dev", write: writeFile} }

func (h host) device(bdf string, elem ...string) string {
	return filepath.Join(append([]string{h.sys, "bus/pci/devices", bdf}, elem...)...)
}

// ID is the identity of a PCI device.
type ID struct{ Vendor, Device uint16 }

// String implements fmt.Stringer, in the format of lspci.
func (id ID) String() string { return fmt.Sprintf("%04x:%04x", id.Vendor, id.Device) }

// Identify returns the identity of the device at a PCI address. If there is none the error wraps
// [os.ErrNotExist].
func Identify(bdf string) (ID, error) { return realHost().identify(bdf) }

func (h host) identify(bdf string) (ID, error) {
	vendor, err1 := h.readHex(bdf, "vendor")
	device, err2 := h.readHex(bdf, "device")
	if err := errors.Join(err1, err2); err != nil {
		return ID{}, fmt.Errorf("identify PCI device: %w", err)
	}
	return ID{uint16(vendor), uint16(device)}, nil
}

// Find returns the PCI addresses of all devices with that identity, sorted.
func Find(id ID) ([]string, error) { return realHost().find(id) }

func (h host) find(id ID) ([]string, error) {
	entries, err := os.ReadDir(h.device(""))
	if err != nil {
		return nil, fmt.Errorf("list PCI devices: %w", err)
	}
	var found []string
	for _, entry := range entries {
		got, err := h.identify(entry.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // unplugged meanwhile
		}
		if err != nil {
			return nil, err
		}
		if got == id {
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
	value, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 0, 16)
	if err != nil {
		return 0, fmt.Errorf("read %s of %s: %w", attribute, bdf, err)
	}
	return value, nil
}

// uioPatience is how long to wait until devtmpfs or udev has made a device node.
const uioPatience = time.Second

// uioPath returns the device node of the interrupt of a bound device.
func (h host) uioPath(bdf string) (string, error) {
	entries, err := os.ReadDir(h.device(bdf, "uio"))
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "uio") {
		return "", errors.Join(err,
			fmt.Errorf("find the uio device of %s: %d entries", bdf, len(entries)))
	}
	path := filepath.Join(h.dev, entries[0].Name())
	for waited := time.Duration(0); ; waited += uioPatience / 20 {
		if _, err = os.Stat(path); err == nil || waited >= uioPatience {
			return path, err
		}
		time.Sleep(uioPatience / 20)
	}
}

func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
