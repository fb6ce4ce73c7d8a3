// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"fmt"
	"os"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/virtio"
)

// deviceID is virtio-fbpp's. It has no transitional form.
var deviceID = virtio.ID{Vendor: protocol.PCIVendorID, Device: protocol.PCIDeviceID}

// Find returns the PCI address of the virtio-fbpp device to drive. That is wanted, or if wanted
// is "" the only such device. It is an error if there is no such device there, or several. Find
// changes nothing.
func Find(wanted string) (bdf string, err error) {
	if wanted == "" {
		found, err := virtio.Find(deviceID)
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("find the virtio-fbpp device (PCI %v): %d of them %v",
				deviceID, len(found), found)
		}
		if err != nil {
			return "", err
		}
		return found[0], nil
	}
	switch got, err := virtio.Identify(wanted); {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("find the virtio-fbpp device: no PCI device is at %s", wanted)
	case err != nil:
		return "", err
	case got != deviceID:
		return "", fmt.Errorf("find the virtio-fbpp device: %s is %v, not %v: %w",
			wanted, got, deviceID, virtio.ErrOtherDevice)
	}
	return wanted, nil
}
