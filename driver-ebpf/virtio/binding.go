// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const uioDriver = "uio_pci_generic"

// binding says which driver a device has.
type binding struct {
	driver   string // "": nobody
	override string // driver_override: the only driver that may bind it; "": any that matches
}

func (h host) binding(bdf string) (binding, error) {
	override, err := os.ReadFile(h.device(bdf, "driver_override"))
	if err != nil {
		return binding{}, err
	}
	b := binding{override: strings.TrimSpace(string(override))}
	if b.override == "(null)" {
		b.override = ""
	}
	b.driver, err = h.driver(bdf)
	return b, err
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

// take binds a device to uio_pci_generic, whose module is loaded, and returns the binding
// before. It uses driver_override, because new_id would also bind other devices of the same
// identity. After an error the device has its old binding.
func (h host) take(bdf string) (was binding, err error) {
	if was, err = h.binding(bdf); err != nil {
		return was, fmt.Errorf("find the driver of %s: %w", bdf, err)
	}
	if was.driver == uioDriver {
		return was, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("bind %s to %s: %w", bdf, uioDriver, err)
			err = errors.Join(err, h.giveBack(bdf, was))
		}
	}()
	if err := h.write(h.device(bdf, "driver_override"), uioDriver); err != nil {
		return was, err
	}
	if was.driver != "" {
		if err := h.write(h.device(bdf, "driver/unbind"), bdf); err != nil {
			return was, fmt.Errorf("take it from %s: %w", was.driver, err)
		}
	}
	if err := h.write(filepath.Join(h.sys, "bus/pci/drivers_probe"), bdf); err != nil {
		return was, err
	}
	now, err := h.driver(bdf)
	if err == nil && now != uioDriver {
		err = errors.New("the driver did not take it (has it an interrupt line?)")
	}
	return was, err
}

// giveBack restores the binding that a device had before. It keeps changes that others have made
// meanwhile.
func (h host) giveBack(bdf string, was binding) error {
	now, err := h.binding(bdf)
	if errors.Is(err, os.ErrNotExist) {
		return nil // unplugged
	}
	if err == nil && now.override == uioDriver && was.override != uioDriver {
		err = h.write(h.device(bdf, "driver_override"), was.override+"\n")
	}
	if err == nil && now.driver == uioDriver && was.driver != uioDriver {
		err = h.write(h.device(bdf, "driver/unbind"), bdf)
		now.driver = ""
	}
	if err == nil && now.driver == "" && was.driver != "" {
		err = h.write(filepath.Join(h.sys, "bus/pci/drivers", was.driver, "bind"), bdf)
	}
	if err != nil {
		return fmt.Errorf("give %s back to %q: %w", bdf, was.driver, err)
	}
	return nil
}
