// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"fmt"
	"slices"

	"libvirt.org/go/libvirtxml"
)

// The serial port by which an agent reports where the guest's kernel gives it no device
// (docs/operating.md). The port's name is that of the device's specification, section 7.4.
const (
	portDriver    = "virtserialport"
	portName      = "org.fbpp-project.agent.0"
	portChardevID = "fbpp-agent"
	serialDriver  = "virtio-serial-pci"
	serialID      = "fbpp-serial"
	serialBus     = serialID + ".0"
)

// HasPort tells whether the machine has the serial port.
func (d *Domain) HasPort() bool {
	_, ok := d.arguments().port()
	return ok || d.hasChannel()
}

// hasChannel tells whether the port is an element of libvirt's own. [Domain.Enable] adds none: its
// socket has to be there when the machine starts, and fbppd may not run.
func (d *Domain) hasChannel() bool {
	return d.xml.Devices != nil && slices.ContainsFunc(d.xml.Devices.Channels,
		func(c libvirtxml.DomainChannel) bool {
			return c.Target != nil && c.Target.VirtIO != nil && c.Target.VirtIO.Name == portName
		})
}

// port returns the option that adds the serial port, unless there is none.
func (a arguments) port() (option, bool) {
	return a.find(func(o option) bool {
		return driver(o.value) == portDriver && property(o.value, "name") == portName
	})
}

// serial returns the option that adds the controller of [Domain.Enable] for the port.
func (a arguments) serial() (option, bool) {
	return a.find(func(o option) bool {
		return driver(o.value) == serialDriver && property(o.value, "id") == serialID
	})
}

// withPort returns the words with the port, which is connected to an instance of fbppd, if that is
// wanted. A port that is there stays as it is, but for the socket. beside is another device, whose
// slot is taken.
func (d *Domain) withPort(
	words arguments, wanted bool, instance, beside string,
) (arguments, error) {
	path := agentSocket(instance)
	port, ok := words.port()
	switch {
	case ok:
		chardev, ok := words.chardev(port)
		if !ok {
			return nil, fmt.Errorf("qemu:commandline has the serial port, but not its chardev")
		}
		words = slices.Clone(words)
		words[chardev.index+1].Value = socketTo(property(port.value, "chardev"), path)
		if serial, ok := words.serial(); ok && d.takesAnothers(serial.value) {
			return nil, errSlotGivenAway
		}
		return words, nil
	case !wanted || d.hasChannel():
		return words, nil
	}
	if err := words.requireFree(portChardevID, serialID); err != nil {
		return nil, err
	}
	slot, err := d.freeSlot(words.with("-device", beside))
	if err != nil {
		return nil, err
	}
	return words.with("-chardev", socketTo(portChardevID, path)).
		with("-device", fmt.Sprintf("%s,id=%s,bus=%s,addr=%#x",
			serialDriver, serialID, d.rootBus(), slot)).
		with("-device", fmt.Sprintf("%s,bus=%s,chardev=%s,name=%s",
			portDriver, serialBus, portChardevID, portName)), nil
}

// withoutPort returns the words without the port. A controller of the operator's own stays, as
// other ports may need it.
func (a arguments) withoutPort() arguments {
	port, ok := a.port()
	if !ok {
		return a
	}
	remove := []option{port}
	if chardev, ok := a.chardev(port); ok {
		remove = append(remove, chardev)
	}
	if serial, ok := a.serial(); ok {
		remove = append(remove, serial)
	}
	return a.without(remove...)
}
