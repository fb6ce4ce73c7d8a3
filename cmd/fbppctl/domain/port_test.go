// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"
)

// withPort is ours with the serial port.
var withPort = Options{Emulator: ours.Emulator, Port: true}

// The port has a controller of its own, in another slot than the device, and goes with the device.
func TestThePortComesAndGoesWithTheDevice(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			d := mustParse(t, mustRead(t, name+".xml"))
			once := mustEnable(t, d, withPort)
			if !d.HasPort() {
				t.Fatalf("it has no port:\n%s", once)
			}
			args := d.arguments()
			device, _ := args.device()
			serial, _ := args.serial()
			port, _ := args.port()
			chardev, _ := args.chardev(port)
			mine, _ := slotOf(device.value)
			its, ok := slotOf(serial.value)
			if !ok || mine == its || d.slots[its] || property(serial.value, "bus") != d.rootBus() {
				t.Errorf("the controller is %q beside %q", serial.value, device.value)
			}
			if property(port.value, "bus") != "fbpp-serial.0" || port.index < serial.index {
				t.Errorf("the port is %q", port.value)
			}
			instance, _ := d.Instance()
			if got := property(chardev.value, "path"); got != "/run/fbpp/"+instance+"/agent.sock" ||
				property(chardev.value, "reconnect-ms") == "" {
				t.Errorf("the port's socket is %q", chardev.value)
			}
			for _, o := range []Options{{}, withPort} { // without the option it stays
				if twice := mustEnable(t, mustParse(t, once), o); twice != once {
					t.Errorf("with %+v it changed:\n%s", o, Diff(once, twice))
				}
			}
			if d.Disable(); d.HasPort() || strings.Contains(mustXML(t, d), "fbpp") {
				t.Errorf("disabled, it is\n%s", mustXML(t, d))
			}
		})
	}
}

// A machine that has the device gets the port as well, and nothing else changes.
func TestThePortIsAddedLater(t *testing.T) {
	for _, name := range names {
		d := mustParse(t, mustRead(t, name+".enabled.xml"))
		before, _ := d.arguments().device()
		mustEnable(t, d, withPort)
		after, _ := d.arguments().device()
		serial, _ := d.arguments().serial()
		if before.value != after.value {
			t.Errorf("%s: the device was %q and is %q", name, before.value, after.value)
		}
		if a, b := property(after.value, "addr"), property(serial.value, "addr"); a == b {
			t.Errorf("%s: both are in slot %s", name, a)
		}
		if err := d.Enable(Options{Properties: []string{"hints=off"}}); err != nil || !d.HasPort() {
			t.Errorf("%s: with a property it has no port any more: %v", name, err)
		}
	}
}

// An operator's own port keeps its place and its controller, and gets the usual socket.
func TestAPortByHandKeepsItsPlace(t *testing.T) {
	const controller = "virtio-serial-pci,id=mine,bus=pcie.0,addr=0x5"
	const port = "virtserialport,bus=mine.0,nr=3,chardev=agent,name=org.fbpp-project.agent.0"
	d := mustParse(t, mustRead(t, "direct.xml"))
	d.xml.QEMUCommandline = new(libvirtxml.DomainQEMUCommandline)
	d.xml.QEMUCommandline.Args = arguments(nil).with("-device", controller).
		with("-chardev", "socket,id=agent,path=/tmp/mine").with("-device", port)
	mustEnable(t, d, withPort)
	got := d.arguments().options("-device")
	if len(got) != 3 || got[0].value != controller || got[1].value != port {
		t.Errorf("the devices are %v", got)
	}
	mine, _ := d.arguments().port()
	chardev, _ := d.arguments().chardev(mine)
	if property(chardev.value, "path") != `/run/fbpp/web-1\x20test/agent.sock` ||
		property(chardev.value, "id") != "agent" {
		t.Errorf("its socket is %q", chardev.value)
	}
	d.Disable()
	if left := d.arguments().options("-device"); len(left) != 1 || left[0].value != controller {
		t.Errorf("disable leaves %v", left)
	}
}

// An element of libvirt's own is a port as well. A second one would have the same name.
func TestAChannelIsAPort(t *testing.T) {
	const channel = `<channel type='unix'><source mode='connect' path='/tmp/mine'/>` +
		`<target type='virtio' name='org.fbpp-project.agent.0'/></channel></devices>`
	d := mustParse(t, strings.Replace(mustRead(t, "direct.xml"), "</devices>", channel, 1))
	mustEnable(t, d, withPort)
	if _, ok := d.arguments().port(); ok || !d.HasPort() {
		t.Errorf("it has another port:\n%s", mustXML(t, d))
	}
}

// What the port would need, and others have, is a reason to change nothing.
func TestWhatThePortCannotHave(t *testing.T) {
	for _, tc := range []struct{ name, option, value, want string }{
		{"its chardev's id", "-chardev", "socket,id=fbpp-agent,path=/x", "id=fbpp-agent"},
		{"its controller's id", "-device", "pvpanic-pci,id=fbpp-serial", "id=fbpp-serial"},
		{"a chardev elsewhere", "-device",
			"virtserialport,chardev=x,name=org.fbpp-project.agent.0", "not its chardev"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := mustParse(t, mustRead(t, "direct.xml"))
			d.xml.QEMUCommandline = new(libvirtxml.DomainQEMUCommandline)
			d.xml.QEMUCommandline.Args = arguments(nil).with(tc.option, tc.value)
			before := mustXML(t, d)
			if err := d.Enable(withPort); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want %q in it", err, tc.want)
			}
			if after := mustXML(t, d); after != before {
				t.Errorf("it changed:\n%s", Diff(before, after))
			}
		})
	}
	once := mustEnable(t, mustParse(t, mustRead(t, "direct.xml")), withPort)
	d := mustParse(t, once)
	serial, _ := d.arguments().serial()
	slot, _ := slotOf(serial.value)
	d.slots[slot] = true
	if err := d.Enable(Options{}); err == nil || !strings.Contains(err.Error(), "slot") {
		t.Errorf("in a slot that was given away: %v", err)
	}
	full := mustParse(t, mustRead(t, "direct.xml"))
	for slot := range uint64(0x20) { // but one, which the device gets
		full.slots[slot] = slot != 0x10
	}
	if err := full.Enable(withPort); err == nil || !strings.Contains(err.Error(), "no free slot") {
		t.Errorf("on a full bus: %v", err)
	}
}
