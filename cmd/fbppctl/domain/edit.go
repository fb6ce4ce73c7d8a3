// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// DeviceDriver is QEMU's name of the device.
const DeviceDriver = "vhost-user-fbpp-pci"

// Names in QEMU's options, as docs/libvirt.md has them.
const (
	deviceID  = "fbpp0"
	chardevID = "fbpp"
)

// Options are what [Domain.Enable] does besides.
type Options struct {
	Emulator   string   // path of the QEMU that has the device; "": as it is
	Properties []string // of the device, as KEY=VALUE
	Port       bool     // add the serial port for an agent; one that is there stays
}

// errSlotGivenAway says that libvirt has given another device the slot of one of ours.
var errSlotGivenAway = errors.New("the device is in a slot that another device has by now:" +
	" disable it, and enable it again")

// Check returns an error for options that QEMU or libvirt would misread.
func (o *Options) Check() error {
	if o.Emulator != "" && !path.IsAbs(o.Emulator) {
		return fmt.Errorf("the emulator's path %q does not begin with a slash", o.Emulator)
	}
	for _, word := range o.Properties {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" || value == "" || strings.ContainsAny(word, ",\"") ||
			slices.Contains([]string{"id", "chardev", "bus", "addr"}, key) {
			return fmt.Errorf("%q is no property of the device as KEY=VALUE", word)
		}
	}
	return nil
}

// Enabled tells whether the machine has the device.
func (d *Domain) Enabled() bool {
	_, ok := d.arguments().device()
	return ok
}

// Instance returns the instance of fbppd@.service whose socket the machine's device
// uses. It is false for a machine without the device, or with a socket elsewhere.
func (d *Domain) Instance() (string, bool) {
	device, ok := d.arguments().device()
	if !ok {
		return "", false
	}
	chardev, ok := d.arguments().chardev(device)
	if !ok {
		return "", false
	}
	return instanceOf(property(chardev.value, "path"))
}

// InstanceIn is [Domain.Instance] of a definition as libvirt's hooks get it. Nothing is
// changed, so that nothing can be lost.
func InstanceIn(text string) (string, bool, error) {
	d := new(Domain)
	if len(text) > MaxSize {
		return "", false, errTooLong
	}
	if _, err := flatten(text); err != nil { // it bounds the depth
		return "", false, fmt.Errorf("read the machine's XML: %w", err)
	}
	if err := d.xml.Unmarshal(text); err != nil {
		return "", false, fmt.Errorf("read the machine's XML: %w", err)
	}
	instance, ok := d.Instance()
	return instance, ok, nil
}

// Enable gives the machine the device and shared memory. What it has already it keeps,
// so that a second Enable changes nothing. Where [Domain.Unfit] has a reason, that is
// the error, and nothing is changed.
func (d *Domain) Enable(o Options) error {
	if reasons := d.Unfit(); len(reasons) > 0 {
		return fmt.Errorf("%s", strings.Join(reasons, "; "))
	}
	instance, err := Instance(d.xml.Name)
	if err != nil {
		return err
	}
	device, err := d.device(o.Properties)
	if err != nil {
		return err
	}
	words := d.withoutDevice()
	if err := words.requireFree(chardevID, deviceID); err != nil {
		return err
	}
	if words, err = d.withPort(words, o.Port, instance, device); err != nil {
		return err
	}
	words = words.with("-chardev", socketTo(chardevID, socket(instance))).with("-device", device)
	if d.xml.QEMUCommandline == nil {
		d.xml.QEMUCommandline = new(libvirtxml.DomainQEMUCommandline)
	}
	d.xml.QEMUCommandline.Args = words
	d.shareMemory()
	if o.Emulator != "" {
		d.xml.Devices.Emulator = o.Emulator
	}
	return nil
}

// socketTo returns the value of QEMU's option for a chardev that fbppd listens for. It connects
// whenever fbppd is there.
func socketTo(id, path string) string {
	return "socket,id=" + id + ",path=" + path + ",reconnect-ms=1000"
}

// Emulator returns the path of the QEMU that libvirt starts, or "" for its default.
func (d *Domain) Emulator() string {
	if d.xml.Devices == nil {
		return ""
	}
	return d.xml.Devices.Emulator
}

// Disable takes the device and the serial port from the machine. Shared memory and the emulator
// stay.
func (d *Domain) Disable() {
	q := d.xml.QEMUCommandline
	if q == nil {
		return
	}
	q.Args = d.withoutDevice().withoutPort()
	if len(q.Args) == 0 && len(q.Envs) == 0 {
		d.xml.QEMUCommandline = nil
	}
}

func (d *Domain) arguments() arguments {
	if d.xml.QEMUCommandline == nil {
		return nil
	}
	return d.xml.QEMUCommandline.Args
}

// withoutDevice returns QEMU's further options without those of the device.
func (d *Domain) withoutDevice() arguments {
	words := d.arguments()
	for {
		device, ok := words.device()
		if !ok {
			return words
		}
		remove := []option{device}
		if chardev, ok := words.chardev(device); ok {
			remove = append(remove, chardev)
		}
		words = words.without(remove...)
	}
}

// device returns the value of QEMU's option for the device. A device that is there
// keeps its place and its properties.
func (d *Domain) device(properties []string) (string, error) {
	words := []string{DeviceDriver, "id=" + deviceID, "chardev=" + chardevID}
	before, ok := d.arguments().device()
	switch {
	case ok && isJSON(before.value) && len(properties) > 0:
		return "", fmt.Errorf("the device is written as JSON: set its properties there")
	case ok && isJSON(before.value):
		if id := property(before.value, "chardev"); id != chardevID {
			return "", fmt.Errorf("the device is written as JSON: its chardev has to be %q", chardevID)
		}
		return before.value, nil
	case ok && d.takesAnothers(before.value):
		return "", errSlotGivenAway
	case ok:
		for _, word := range strings.Split(before.value, ",")[1:] {
			key, _, _ := strings.Cut(word, "=")
			if key != "id" && key != "chardev" && !slices.ContainsFunc(properties, sets(key)) {
				words = append(words, word)
			}
		}
	default:
		slot, err := d.freeSlot(d.arguments())
		if err != nil {
			return "", err
		}
		words = append(words, "bus="+d.rootBus(), fmt.Sprintf("addr=%#x", slot))
	}
	return strings.Join(append(words, properties...), ","), nil
}

// freeSlot returns a slot of the root bus that neither libvirt's devices have nor those of further
// options of QEMU.
func (d *Domain) freeSlot(words arguments) (uint64, error) {
	taken := maps.Clone(d.slots)
	taken.takeArguments(words)
	slot, ok := taken.free()
	if !ok {
		return 0, errors.New("the machine's root bus has no free slot")
	}
	return slot, nil
}

// takesAnothers tells whether a device on the root bus is in a slot that libvirt has
// given away since.
func (d *Domain) takesAnothers(device string) bool {
	slot, ok := slotOf(device)
	return ok && property(device, "bus") == d.rootBus() && d.slots[slot]
}

// sets returns a function that tells whether a word KEY=VALUE is for a key.
func sets(key string) func(string) bool {
	return func(word string) bool { return strings.HasPrefix(word, key+"=") }
}

// rootBus returns QEMU's name of the bus that a machine always has, or "".
func (d *Domain) rootBus() string {
	if d.xml.OS == nil || d.xml.OS.Type == nil {
		return ""
	}
	switch machine := d.xml.OS.Type.Machine; {
	case machine == "q35" || strings.HasPrefix(machine, "pc-q35"):
		return "pcie.0"
	case machine == "pc" || strings.HasPrefix(machine, "pc-i440fx"):
		return "pci.0"
	}
	return ""
}

// shareMemory has libvirt share the machine's memory. A file keeps being one.
func (d *Domain) shareMemory() {
	if d.xml.MemoryBacking == nil {
		d.xml.MemoryBacking = new(libvirtxml.DomainMemoryBacking)
	}
	m := d.xml.MemoryBacking
	if m.MemorySource == nil || m.MemorySource.Type != "file" {
		m.MemorySource = &libvirtxml.DomainMemorySource{Type: "memfd"}
	}
	m.MemoryAccess = &libvirtxml.DomainMemoryAccess{Mode: "shared"}
}
