// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Offsets and values of PCI configuration space.
const (
	pciVendor        = 0x00 // le16
	pciDevice        = 0x02 // le16
	pciCommand       = 0x04 // le16
	pciCapabilities  = 0x34 // u8: first capability
	pciConfigMin     = 64
	pciConfigLegacy  = 256
	pciCapVendor     = 0x09
	commandMemory    = 1 << 1
	commandMaster    = 1 << 2
	commandNoINTx    = 1 << 10
	pciBARs          = 6
	maxCapabilities  = 48 // a list through 192 bytes of 4-byte headers
	capabilitySize   = 16
	capNotifyExtra   = 4
	capCommon        = 1
	capNotify        = 2
	capISR           = 3
	capDevice        = 4
	commonConfigSize = 56
)

// location is where a structure of the device is: a BAR, and an offset and length in it.
type location struct {
	bar    uint8
	offset uint32
	length uint32
}

// capabilities are the locations of the structures in a virtio device's PCI capability list
// (section 4.1.4).
type capabilities struct {
	common, notify, isr, device location
	notifyMultiplier            uint32
}

var errNotModern = errors.New("not a VIRTIO 1.x device")

// parseCapabilities finds the structures in PCI configuration space. If a kind has several
// capabilities the first one counts, as the standard says.
func parseCapabilities(config []byte) (capabilities, error) {
	var caps capabilities
	if len(config) < pciConfigMin {
		return caps, fmt.Errorf("parse PCI configuration: only %d bytes", len(config))
	}
	le := binary.LittleEndian
	seen := 0
	for at := int(config[pciCapabilities] &^ 3); at != 0; at = int(config[at+1] &^ 3) {
		if seen++; seen > maxCapabilities {
			return caps, errors.New("parse PCI configuration: endless capability list")
		}
		if at < pciConfigMin || at+2 > len(config) {
			return caps, fmt.Errorf("parse PCI configuration: capability at %#x", at)
		}
		if config[at] != pciCapVendor || at+capabilitySize > len(config) ||
			config[at+2] < capabilitySize {
			continue
		}
		offset, length := le.Uint32(config[at+8:]), le.Uint32(config[at+12:])
		where := location{bar: config[at+4], offset: offset, length: length}
		if where.bar >= pciBARs || where.length == 0 {
			continue // reserved: to be ignored
		}
		switch config[at+3] {
		case capCommon:
			caps.common.setOnce(where)
		case capNotify:
			if caps.notify.length == 0 && at+capabilitySize+capNotifyExtra <= len(config) {
				caps.notify = where
				caps.notifyMultiplier = le.Uint32(config[at+capabilitySize:])
			}
		case capISR:
			caps.isr.setOnce(where)
		case capDevice:
			caps.device.setOnce(where)
		}
	}
	if caps.common.length < commonConfigSize || caps.notify.length == 0 || caps.isr.length == 0 {
		return caps, fmt.Errorf("parse PCI configuration: %w", errNotModern)
	}
	return caps, nil
}

func (l *location) setOnce(where location) {
	if l.length == 0 {
		*l = where
	}
}
