// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"strings"
	"testing"
)

// A machine that cannot have the device gets a reason, and is not changed.
func TestUnfitMachinesAreLeftAsTheyAre(t *testing.T) {
	for _, tc := range []struct{ name, old, new, want string }{
		{"another hypervisor", "type='qemu'", "type='xen'", `type is "xen"`},
		{"another architecture", "arch='x86_64'", "arch='aarch64'", "neither a q35 nor"},
		{"no PCI", "machine='pc-q35-10.0'", "machine='microvm'", "neither a q35 nor"},
		{"encrypted memory", "<devices>", "<launchSecurity type='sev'><policy>0x0001</policy>" +
			"</launchSecurity><devices>", "encrypted"},
		{"a private cell", "<cpu mode='maximum' check='none'>", "<cpu mode='maximum' check='none'>" +
			"<numa><cell id='0' cpus='0-1' memory='1' memAccess='private'/></numa>", "NUMA cell 0"},
		{"VFIO", "<memballoon ", "<hostdev mode='subsystem' type='pci'><source><address domain='0x0000'" +
			" bus='0x06' slot='0x12' function='0x5'/></source></hostdev><memballoon ", "hostdev"},
		{"a mediated device", "<memballoon ", "<hostdev mode='subsystem' type='mdev' model='vfio-pci'>" +
			"<source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>" +
			"<memballoon ", "hostdev"},
		{"an SR-IOV interface", "<memballoon ", "<interface type='hostdev'><source><address type='pci'" +
			" domain='0x0000' bus='0x00' slot='0x07' function='0x0'/></source></interface><memballoon ",
			"an interface is a device of the host"},
		{"vDPA", "<memballoon ", "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>" +
			"<memballoon ", "vDPA"},
		{"a private module", "<memballoon ", "<memory model='dimm' access='private'><target>" +
			"<size unit='KiB'>524287</size></target></memory><memballoon ", "module (dimm) is private"},
		{"an NVDIMM", "<memballoon ", "<memory model='nvdimm'><source><path>/n</path></source><target>" +
			"<size unit='KiB'>524288</size></target></memory><memballoon ", "NVDIMM is not shared"},
		{"virtio-mem", "<memballoon ", "<memory model='virtio-mem'><target><size unit='KiB'>524288" +
			"</size></target></memory><memballoon ", "model virtio-mem"},
		{"own memory", "</devices>", "</devices>" + commandline("-object",
			"memory-backend-ram,id=m,size=1G"), "without share=on: memory-backend-ram"},
		{"own memory in JSON", "</devices>", "</devices>" + commandline("-object",
			`{&quot;qom-type&quot;:&quot;memory-backend-ram&quot;,&quot;share&quot;:false}`),
			"without share=on"},
		{"own NUMA nodes", "</devices>", "</devices>" + commandline("--numa", "node"), "has -numa"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := mustParse(t, strings.Replace(mustRead(t, "direct.xml"), tc.old, tc.new, 1))
			before := mustXML(t, d)
			err := d.Enable(ours)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want %q in it", err, tc.want)
			}
			if mustXML(t, d) != before {
				t.Error("it was changed")
			}
		})
	}
}

// Memory that is shared already is no reason.
func TestSharedMemoryOfOthersFits(t *testing.T) {
	for _, more := range []string{
		"<memory model='nvdimm' access='shared'><source><path>/n</path></source><target>" +
			"<size unit='KiB'>524288</size></target></memory></devices>",
		"</devices>" + commandline("-object", "memory-backend-memfd,id=m,size=1G,share=on"),
		"</devices>" + commandline("-object",
			`{&quot;qom-type&quot;:&quot;memory-backend-ram&quot;,&quot;share&quot;:true}`),
	} {
		d := mustParse(t, strings.Replace(mustRead(t, "direct.xml"), "</devices>", more, 1))
		if why := d.Unfit(); len(why) > 0 {
			t.Errorf("with %s it is unfit: %v", more, why)
		}
	}
}

// commandline returns an option of QEMU in libvirt's XML.
func commandline(words ...string) string {
	var b strings.Builder
	b.WriteString("<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>")
	for _, w := range words {
		b.WriteString(`<arg value="` + w + `"/>`)
	}
	return b.String() + "</commandline>"
}

func TestAFullRootBusIsAReason(t *testing.T) {
	d := mustParse(t, mustRead(t, "direct.xml"))
	for slot := range uint64(32) {
		d.slots[slot] = true
	}
	if err := d.Enable(ours); err == nil || !strings.Contains(err.Error(), "no free slot") {
		t.Errorf("the error is %v", err)
	}
}

func TestOptionsThatWouldBeMisread(t *testing.T) {
	for _, o := range []Options{
		{Emulator: "qemu-system-x86_64"}, {Properties: []string{"hints"}},
		{Properties: []string{"=on"}}, {Properties: []string{"hints="}},
		{Properties: []string{"hints=on,addr=0x3"}}, {Properties: []string{"addr=0x3"}},
	} {
		if o.Check() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	if err := (&Options{Emulator: "/q", Properties: []string{"hints=off"}}).Check(); err != nil {
		t.Error(err)
	}
}
