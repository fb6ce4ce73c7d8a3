// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"fmt"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// Unfit returns why the machine gets no device, or nothing. Without the device its
// migrations are ordinary ones.
func (d *Domain) Unfit() []string {
	var why []string
	for _, part := range []func() []string{d.unfitMachine, d.unfitMemory, d.unfitDevices} {
		why = append(why, part()...)
	}
	return why
}

func (d *Domain) unfitMachine() []string {
	x := &d.xml
	var why []string
	if x.Type != "kvm" && x.Type != "qemu" {
		why = append(why, fmt.Sprintf("the machine's type is %q: the device needs QEMU", x.Type))
	}
	if x.OS == nil || x.OS.Type == nil || x.OS.Type.Arch != "x86_64" || d.rootBus() == "" {
		why = append(why, "the machine is neither a q35 nor an i440fx for x86_64")
	}
	if x.Devices == nil {
		why = append(why, "the machine's XML has no devices")
	}
	if x.LaunchSecurity != nil {
		why = append(why, "its memory is encrypted (launchSecurity): fbppd cannot read it")
	}
	return why
}

func (d *Domain) unfitMemory() []string {
	var why []string
	if cpu := d.xml.CPU; cpu != nil && cpu.Numa != nil {
		for i, cell := range cpu.Numa.Cell {
			if cell.MemAccess == "private" {
				why = append(why, fmt.Sprintf("NUMA cell %d has private memory (memAccess):"+
					" fbppd cannot read it", i))
			}
		}
	}
	for _, o := range d.arguments().options("-object") {
		kind, _, _ := strings.Cut(o.value, ",")
		if isJSON(o.value) {
			kind = property(o.value, "qom-type")
		}
		if strings.HasPrefix(kind, "memory-backend-") && property(o.value, "share") != "on" {
			why = append(why, fmt.Sprintf("qemu:commandline has memory of its own without share=on: %s",
				o.value))
		}
	}
	for _, name := range []string{"-mem-path", "-numa"} {
		if len(d.arguments().options(name)) > 0 {
			why = append(why, fmt.Sprintf("qemu:commandline has %s: fbppctl cannot tell whether"+
				" the memory is shared", name))
		}
	}
	if d.xml.Devices == nil {
		return why
	}
	for _, m := range d.xml.Devices.Memorydevs {
		if reason := unfitModule(m); reason != "" {
			why = append(why, reason)
		}
	}
	return why
}

// unfitModule returns why a memory module does not go with the device, or "".
func unfitModule(m libvirtxml.DomainMemorydev) string {
	switch {
	case m.Access == "private":
		return fmt.Sprintf("a memory module (%s) is private: fbppd cannot read it", m.Model)
	case m.Model == "dimm", m.Model == "nvdimm" && m.Access == "shared":
		return ""
	case m.Model == "nvdimm":
		return "an NVDIMM is not shared: it needs access='shared'"
	}
	return fmt.Sprintf("fbpp was not tried with memory of the model %s", m.Model)
}

func (d *Domain) unfitDevices() []string {
	if d.xml.Devices == nil {
		return nil
	}
	var why []string
	for _, h := range d.xml.Devices.Hostdevs {
		if h.SubsysPCI != nil || h.SubsysMDev != nil {
			why = append(why, "it has a device of the host (hostdev): VFIO calls all memory written,"+
				" so that hints skip nothing")
		}
	}
	for _, i := range d.xml.Devices.Interfaces {
		if i.Source != nil && (i.Source.Hostdev != nil || i.Source.VDPA != nil) {
			why = append(why, "an interface is a device of the host: VFIO calls all memory written,"+
				" so that hints skip nothing, and fbpp was not tried with vDPA")
		}
	}
	return why
}
