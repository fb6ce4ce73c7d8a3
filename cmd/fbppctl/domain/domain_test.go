// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"
)

var update = flag.Bool("update", false, "write the definitions that are compared anew")

// names are those of the definitions in testdata, as virsh dumpxml printed them. What
// becomes of NAME.xml is in NAME.enabled.xml.
var names = []string{"q35", "i440fx", "direct"}

func mustRead(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func mustParse(t testing.TB, text string) *Domain {
	t.Helper()
	d, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustXML(t testing.TB, d *Domain) string {
	t.Helper()
	text, err := d.XML()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func mustEnable(t testing.TB, d *Domain, o Options) string {
	t.Helper()
	if err := d.Enable(o); err != nil {
		t.Fatal(err)
	}
	return mustXML(t, d)
}

var ours = Options{Emulator: "/usr/local/bin/qemu-system-x86_64"}

func TestEnabledDefinitions(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			d := mustParse(t, mustRead(t, name+".xml"))
			if d.Enabled() {
				t.Error("it is enabled at first")
			}
			got := mustEnable(t, d, ours)
			if *update {
				err := os.WriteFile(filepath.Join("testdata", name+".enabled.xml"), []byte(got), 0o600)
				if err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(mustRead(t, name+".enabled.xml"), got); diff != "" {
				t.Errorf("enabled otherwise (-want +got):\n%s", diff)
			}
			want, err := Instance(d.Name())
			instance, ok, inErr := InstanceIn(got)
			if err != nil || inErr != nil || !ok || instance != want {
				t.Errorf("the instance is %q (%v, %v, %v), want %q", instance, ok, err, inErr, want)
			}
		})
	}
}

// What was enabled once is not changed again, also with another property.
func TestEnablingTwiceChangesNothing(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			o := ours
			o.Properties = []string{"hint-timeout=5000"}
			once := mustEnable(t, mustParse(t, mustRead(t, name+".xml")), o)
			if twice := mustEnable(t, mustParse(t, once), Options{}); twice != once {
				t.Errorf("the second time it changed:\n%s", Diff(once, twice))
			}
			o.Properties = []string{"hint-timeout=6000"}
			got := mustEnable(t, mustParse(t, once), o)
			if want := strings.Replace(once, "=5000", "=6000", 1); got != want {
				t.Errorf("another timeout changed:\n%s", Diff(once, got))
			}
		})
	}
}

// After disable only shared memory and the emulator are different.
func TestDisabledDefinitions(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			d := mustParse(t, mustRead(t, name+".xml"))
			before := mustXML(t, d)
			mustEnable(t, d, ours)
			d.Disable()
			if d.Enabled() {
				t.Error("it is still enabled")
			}
			for line := range strings.Lines(Diff(before, mustXML(t, d))) {
				if changed := line[0] == '+' || line[0] == '-'; changed &&
					!strings.Contains(line, "memoryBacking>") && !strings.Contains(line, "emulator>") &&
					!strings.Contains(line, `<source type="memfd">`) &&
					!strings.Contains(line, `<access mode="shared">`) &&
					!strings.HasPrefix(line, "--- ") && !strings.HasPrefix(line, "+++ ") {
					t.Errorf("this is different, too: %s", line)
				}
			}
			once := mustXML(t, d)
			if d.Disable(); mustXML(t, d) != once {
				t.Error("a second time it changed something")
			}
		})
	}
}

// Other managers keep what they know in the metadata, and declare its namespaces there.
func TestMetadataIsKept(t *testing.T) {
	const metadata = `<metadata xmlns:m="urn:manager"><m:vm rank="1"/></metadata>`
	text := strings.Replace(mustRead(t, "direct.xml"), "<memory ", metadata+"<memory ", 1)
	d := mustParse(t, text)
	if got := mustEnable(t, d, ours); !strings.Contains(got, metadata) {
		t.Errorf("the metadata has changed:\n%s", got)
	}
	_, err := Parse(strings.Replace(text, "<domain ", `<domain xmlns:n="urn:other" `, 1))
	if err == nil || !strings.Contains(err.Error(), "urn:other") {
		t.Errorf("a namespace of the machine would be lost: %v", err)
	}
}

// The device gets a slot that nothing has, however that is written.
func TestSlotsOfOthersAreSeen(t *testing.T) {
	for _, device := range []string{
		"pvpanic-pci,bus=pcie.0,addr=1c", "pvpanic-pci,bus=pcie.0,addr=0x1c.1",
		`{"driver":"pvpanic-pci","bus":"pcie.0","addr":"0x1c"}`,
	} {
		d := mustParse(t, mustRead(t, "direct.xml"))
		d.xml.QEMUCommandline = new(libvirtxml.DomainQEMUCommandline)
		d.xml.QEMUCommandline.Args = arguments(nil).with("-device", device)
		mustEnable(t, d, ours)
		if mine, _ := d.arguments().device(); !strings.HasSuffix(mine.value, ",addr=0x19") {
			t.Errorf("beside %s the device is %s", device, mine.value)
		}
	}
}

func TestIDsOfOthersAreSeen(t *testing.T) {
	for name, value := range map[string]string{
		"-chardev": "socket,id=fbpp,path=/x", "-device": "pvpanic-pci,id=fbpp0",
	} {
		d := mustParse(t, mustRead(t, "direct.xml"))
		d.xml.QEMUCommandline = new(libvirtxml.DomainQEMUCommandline)
		d.xml.QEMUCommandline.Args = arguments(nil).with(name, value)
		if err := d.Enable(ours); err == nil || !strings.Contains(err.Error(), "id=fbpp") {
			t.Errorf("beside %s %s: %v", name, value, err)
		}
	}
}

// A slot that libvirt has given to another device since is not kept.
func TestASlotThatIsGivenAwayIsAReason(t *testing.T) {
	once := mustEnable(t, mustParse(t, mustRead(t, "direct.xml")), ours)
	d := mustParse(t, once)
	d.slots[0x1c] = true
	if err := d.Enable(Options{}); err == nil || !strings.Contains(err.Error(), "slot") {
		t.Errorf("the error is %v", err)
	}
}

// A device that was written by hand keeps its place, and gets fbppd's usual socket.
func TestDevicesByHandKeepTheirPlace(t *testing.T) {
	const json = `{"driver":"vhost-user-fbpp-pci","id":"fbpp0","chardev":"fbpp","bus":"pci.1"}`
	for _, tc := range []struct{ name, device, want string }{
		{"key=value", "vhost-user-fbpp-pci,chardev=x,bus=pcie.0,addr=0x5,hints=off",
			"vhost-user-fbpp-pci,id=fbpp0,chardev=fbpp,bus=pcie.0,addr=0x5,hints=off"},
		{"JSON", json, json},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := mustParse(t, mustRead(t, "direct.xml"))
			mustEnable(t, d, ours)
			chardev := property(tc.device, "chardev")
			d.xml.QEMUCommandline.Args = arguments(nil).with("-chardev", "socket,id=other,path=/x").
				with("-chardev", "socket,id="+chardev+",path=/tmp/mine").with("-device", tc.device)
			text := mustXML(t, d)
			if instance, ok := d.Instance(); ok {
				t.Errorf("a socket elsewhere is that of the instance %q", instance)
			}
			mustEnable(t, d, Options{})
			args := d.arguments()
			if got := args.options("-device"); len(got) != 1 || got[0].value != tc.want {
				t.Errorf("the device is %v, want %q\n%s", got, tc.want, text)
			}
			if got := args.options("-chardev"); len(got) != 2 ||
				property(got[1].value, "path") != `/run/fbpp/web-1\x20test/vhost.sock` {
				t.Errorf("the sockets are %v", got)
			}
			err := d.Enable(Options{Properties: []string{"hints=on"}})
			if isJSON(tc.device) != (err != nil) {
				t.Errorf("with a property: %v", err)
			}
		})
	}
}
