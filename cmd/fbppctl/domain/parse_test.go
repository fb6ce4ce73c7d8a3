// SPDX-License-Identifier: Apache-2.0

package domain

import (
	"strings"
	"testing"
)

// What libvirtxml does not know would be lost with virsh define.
func TestWhatWouldBeLostIsRefused(t *testing.T) {
	direct := mustRead(t, "direct.xml")
	for _, tc := range []struct{ name, old, new, want string }{
		{"an element", "<memballoon ", "<teapot/><memballoon ", "/domain/devices/teapot"},
		{"an attribute", "<memballoon ", "<memballoon milk='2' ",
			`attribute milk="2" of /domain/devices`},
		{"an element of another namespace", "</devices>",
			"</devices><x xmlns='urn:x'><y/></x>", "/domain/x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(strings.Replace(direct, tc.old, tc.new, 1))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestParseIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"long":    strings.Repeat(" ", MaxSize+1),
		"deep":    strings.Repeat("<domain>", 1000),
		"broken":  "<domain",
		"empty":   "",
		"another": "<network/>",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: it is accepted", name)
		}
		if _, ok, err := InstanceIn(text); ok || err == nil {
			t.Errorf("%s: the hook accepts it", name)
		}
	}
}

// Names of machines become names that systemd allows, each its own.
func TestInstances(t *testing.T) {
	for name, want := range map[string]string{
		"vm1": "vm1", "web-1.example:0_A": "web-1.example:0_A", "web 1": `web\x201`,
		".": `\x2e`, "..": `\x2e.`, "a/b": `a\x2fb`, `a\x20b`: `a\x5cx20b`, "ü@%i": `\xc3\xbc\x40\x25i`,
		"a,b": `a\x2cb`,
	} {
		got, err := Instance(name)
		if err != nil || got != want {
			t.Errorf("%q is the instance %q (%v), want %q", name, got, err, want)
		}
		if back, ok := instanceOf(socket(got)); !ok && name != "" || back != got {
			t.Errorf("the path %q is of the instance %q", socket(got), back)
		}
	}
	for _, name := range []string{"", strings.Repeat("x", 100)} {
		if got, err := Instance(name); err == nil {
			t.Errorf("%q is the instance %q", name, got)
		}
	}
	for _, path := range []string{
		"/run/fbpp/vhost.sock", "/run/fbpp//vhost.sock", "/run/fbpp/../vhost.sock",
		"/run/fbpp/a b/vhost.sock", "/run/fbpp/a/b/vhost.sock", "/run/fbpp/*/vhost.sock", "/x/vhost.sock",
	} {
		if got, ok := instanceOf(path); ok {
			t.Errorf("%s is of the instance %q", path, got)
		}
	}
}

// FuzzParse checks that what is accepted can be enabled twice, and disabled, without
// harm to the rest.
func FuzzParse(f *testing.F) {
	for _, name := range names {
		f.Add(mustRead(f, name+".xml"))
		f.Add(mustRead(f, name+".enabled.xml"))
	}
	f.Add(`<domain type='kvm'><name>a</name><os><type arch='x86_64' machine='q35'/></os><devices>` +
		`<memory model='dimm'/><hostdev/><interface type='vdpa'/></devices></domain>`)
	f.Fuzz(func(t *testing.T, text string) {
		_, _, _ = InstanceIn(text)
		d, err := Parse(text)
		if err != nil {
			return
		}
		if d.Enable(ours) != nil {
			return
		}
		once := mustXML(t, d)
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("what was enabled cannot be read: %v", err)
		}
		if twice := mustEnable(t, again, ours); once != twice {
			t.Fatalf("the second time it changed:\n%s", Diff(once, twice))
		}
		if again.Disable(); again.Enabled() {
			t.Fatal("it cannot be disabled")
		}
	})
}
