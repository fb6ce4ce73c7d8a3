// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

// fakeVirsh is a libvirt with one machine, whose XML is in the folder $VIRSH. tests/libvirt
// has the real one.
const fakeVirsh = `#!/bin/sh
echo "$*" >>"$VIRSH/calls"
case "$*" in
*dumpxml*--domain=vm1*) cat "$VIRSH/xml" ;;
*dominfo*) printf 'Name:  vm1\nState: %s\nPersistent: %s\nManaged save: %s\n' \
	"$STATE" "$PERSISTENT" "$SAVED" ;;
*define*) cat >"$VIRSH/xml" ;;
*) echo "error: failed to get domain 'x'" >&2; exit 1 ;;
esac
`

// fakeQEMU knows the device unless $STOCK is set.
const fakeQEMU = `#!/bin/sh
[ "$*" = "-device vhost-user-fbpp-pci,help" ] && [ -z "$STOCK" ] || {
	echo "Device 'vhost-user-fbpp-pci' not found" >&2; exit 1; }
`

// mustPrograms puts programs of the test before all others, and returns their folder.
func mustPrograms(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// mustVirsh makes fakeVirsh the virsh, with a machine that is shut off.
func mustVirsh(t *testing.T) (dir string) {
	t.Helper()
	dir = mustPrograms(t, map[string]string{"virsh": fakeVirsh, "qemu": fakeQEMU})
	text := strings.Replace(mustReadFile(t, "domain/testdata/q35.xml"), "/usr/bin/qemu-system-x86_64",
		dir+"/qemu", 1)
	if err := os.WriteFile(filepath.Join(dir, "xml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"VIRSH": dir, "STATE": "shut off", "PERSISTENT": "yes", "SAVED": "no",
	} {
		t.Setenv(key, value)
	}
	return dir
}

func mustReadFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// mustSay runs fbppctl and returns what it printed.
func mustSay(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLibvirtEnableAndDisable(t *testing.T) {
	dir := mustVirsh(t)
	before := mustReadFile(t, dir+"/xml")
	enable := []string{"libvirt", "enable", "--connect=qemu:///system", "vm1"}
	said := mustSay(t, append(enable, "--dry-run")...)
	if !strings.Contains(said, "\n+    <arg value=\"vhost-user-fbpp-pci,") ||
		!strings.HasSuffix(said, "\nNothing was changed (--dry-run).\n") {
		t.Errorf("a dry run says %q", said)
	}
	if mustReadFile(t, dir+"/xml") != before {
		t.Error("a dry run changed something")
	}
	mustSay(t, enable...)
	if after := mustReadFile(t, dir+"/xml"); !strings.Contains(after, "/run/fbpp/db.01/vhost.sock") {
		t.Errorf("enabled, it is %s", after)
	}
	if said := mustSay(t, enable...); said != "Nothing to change.\n" {
		t.Errorf("a second time it says %q", said)
	}
	if calls := mustReadFile(t, dir+"/calls"); strings.Count(calls, "define") != 1 ||
		strings.Count(calls, "--connect=qemu:///system") != strings.Count(calls, "\n") {
		t.Errorf("virsh was called: %s", calls)
	}
	if said := mustSay(t, "libvirt", "show", "vm1"); !strings.Contains(said, "has it\n") ||
		!strings.Contains(said, "fbppd@db.01.service\n") {
		t.Errorf("show says %q", said)
	}
	mustSay(t, "libvirt", "disable", "vm1")
	if after := mustReadFile(t, dir+"/xml"); strings.Contains(after, "fbpp") {
		t.Errorf("disabled, it is %s", after)
	}
}

// --port adds the serial port, which stays until the device goes.
func TestLibvirtEnableWithThePort(t *testing.T) {
	dir := mustVirsh(t)
	mustSay(t, "libvirt", "enable", "vm1")
	mustSay(t, "libvirt", "enable", "vm1", "--port")
	if after := mustReadFile(t, dir+"/xml"); !strings.Contains(after, "/run/fbpp/db.01/agent.sock") {
		t.Errorf("with the port it is %s", after)
	}
	if said := mustSay(t, "libvirt", "enable", "vm1"); said != "Nothing to change.\n" {
		t.Errorf("without the option it says %q", said)
	}
	mustSay(t, "libvirt", "disable", "vm1")
	if after := mustReadFile(t, dir+"/xml"); strings.Contains(after, "fbpp") {
		t.Errorf("disabled, it is %s", after)
	}
}

func TestLibvirtSaysWhenTheChangeHolds(t *testing.T) {
	for _, tc := range []struct{ variable, value, want string }{
		{"STATE", "running", "from its next start"},
		{"SAVED", "yes", "is restored as it was"},
	} {
		t.Run(tc.value, func(t *testing.T) {
			mustVirsh(t)
			t.Setenv(tc.variable, tc.value)
			if said := mustSay(t, "libvirt", "enable", "vm1"); !strings.Contains(said, tc.want) {
				t.Errorf("it says %q, want %q", said, tc.want)
			}
		})
	}
}

func TestLibvirtLeavesMachinesAlone(t *testing.T) {
	for _, tc := range []struct{ name, variable, value, edit, want string }{
		{name: "transient", variable: "PERSISTENT", value: "no", want: "db.01 is transient"},
		{name: "unfit", edit: "<launchSecurity type='sev'><policy>0x0001</policy></launchSecurity>",
			want: "db.01 is left as it is, and migrates as ever: its memory is encrypted"},
		{name: "another QEMU", variable: "STOCK", value: "1", want: "give --emulator"},
		{name: "unknown", edit: "<teapot/>", want: "does not know /domain/teapot"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := mustVirsh(t)
			if tc.variable != "" {
				t.Setenv(tc.variable, tc.value)
			}
			text := strings.Replace(mustReadFile(t, dir+"/xml"), "<devices>", tc.edit+"<devices>", 1)
			if err := os.WriteFile(dir+"/xml", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := run(t.Context(), []string{"libvirt", "enable", "vm1"}, new(strings.Builder))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want %q in it", err, tc.want)
			}
			if mustReadFile(t, dir+"/xml") != text {
				t.Error("it was changed")
			}
		})
	}
}

func TestLibvirtErrors(t *testing.T) {
	mustVirsh(t)
	err := run(t.Context(), []string{"libvirt", "show", "vm2"}, new(strings.Builder))
	if err == nil || err.Error() != "virsh: failed to get domain 'x'" {
		t.Errorf("for a machine that is not there: %v", err)
	}
	for _, args := range [][]string{
		{"libvirt"}, {"libvirt", "enabel", "vm1"}, {"libvirt", "enable"}, {"libvirt", "show", "a", "b"},
		{"libvirt", "enable", "vm1", "--emulator=qemu"}, {"libvirt", "show", "vm1", "--vm=vm1"},
		{"libvirt", "enable", "vm1", "--property=addr=0x3"},
	} {
		err := run(t.Context(), args, new(strings.Builder))
		if !errors.As(err, new(cli.UsageError)) {
			t.Errorf("%q: %v", args, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	err = run(t.Context(), []string{"libvirt", "show", "vm1"}, new(strings.Builder))
	if err == nil || !strings.HasPrefix(err.Error(), "virsh is missing") {
		t.Errorf("without virsh: %v", err)
	}
}

func TestLibvirtShowKeepsItsSchema(t *testing.T) {
	dir := mustVirsh(t)
	schema := mustSchema(t, "libvirt")
	validate(t, schema, mustSay(t, "--json", "libvirt", "show", "vm1"))
	text := strings.Replace(mustReadFile(t, dir+"/xml"), "type='qemu'", "type='xen'", 1)
	if err := os.WriteFile(dir+"/xml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said := mustSay(t, "--json", "libvirt", "show", "vm1")
	validate(t, schema, said)
	var s libvirtState
	if err := json.Unmarshal([]byte(said), &s); err != nil || s.Enabled || len(s.Reasons) != 1 {
		t.Errorf("show says %s: %v", said, err)
	}
}
