// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"strconv"
	"strings"
)

// slots are the numbers of a root bus, of which the machine's devices have some.
type slots map[uint64]bool

// slotsOf returns the slots of the root bus that a definition names.
func slotsOf(facts []fact) slots {
	taken := make(slots)
	for i, f := range facts {
		if f.name != "" || !strings.HasSuffix(f.path, "/address") {
			continue
		}
		attributes := make(map[string]string)
		for _, a := range facts[i+1:] {
			if a.name == "" {
				break
			}
			attributes[a.name] = a.value
		}
		bus, err := strconv.ParseUint(attributes["bus"], 0, 8)
		if attributes["type"] != "pci" || err != nil || bus != 0 {
			continue
		}
		if slot, err := strconv.ParseUint(attributes["slot"], 0, 8); err == nil {
			taken[slot] = true
		}
	}
	return taken
}

// takeArguments adds what options of QEMU take that libvirt does not know of.
func (s slots) takeArguments(a arguments) {
	for _, o := range a.options("-device") {
		if isJSON(o.value) && !strings.HasSuffix(property(o.value, "bus"), ".0") {
			continue // behind one of libvirt's ports, pci.N
		}
		if slot, ok := slotOf(o.value); ok {
			s[slot] = true
		}
	}
}

// slotOf returns the slot in the value of an option of QEMU, which is hexadecimal with or
// without 0x, and may have a function behind it.
func slotOf(value string) (slot uint64, ok bool) {
	address, _, _ := strings.Cut(property(value, "addr"), ".")
	slot, err := strconv.ParseUint(strings.TrimPrefix(address, "0x"), 16, 8)
	return slot, err == nil
}

// free returns a slot that nothing has. libvirt gives its ports the lowest ones, and
// devices of the chipset those from 0x1d on, 0x1a and 0x1b.
func (s slots) free() (uint64, bool) {
	for slot := uint64(0x1c); slot > 2; slot-- {
		if !s[slot] && slot != 0x1a && slot != 0x1b {
			return slot, true
		}
	}
	return 0, false
}
