// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hook runs the hook's script as libvirt does, with the programs of a folder, and with a
// systemctl that fails where FAIL is set. It returns what systemctl was told, what was
// logged and what was printed.
func hook(t *testing.T, programs, xml string, words ...string) (told, logged, printed string) {
	t.Helper()
	t.Setenv("PATH", programs+":"+os.Getenv("PATH"))
	dir := mustPrograms(t, map[string]string{
		"systemctl": "#!/bin/sh\necho \"$*\" >>\"${0%/*}/told\"\n" +
			"[ -z \"$FAIL\" ] || { echo no; exit 1; }\n",
		"logger": "#!/bin/sh\nexec cat >>\"${0%/*}/log\"\n",
	})
	cmd := exec.CommandContext(t.Context(), "../../contrib/libvirt/fbpp", words...)
	cmd.Stdin = strings.NewReader(xml)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the hook ends with %v: libvirt would not start the machine", err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(text)
	}
	return read("told"), read("log"), string(out)
}

func TestHook(t *testing.T) {
	programs := t.TempDir()
	build := exec.Command("go", "build", "-o", programs+"/", ".")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fbppctl: %v: %s", err, said)
	}
	const direct = `fbppd@web-1\x20test.service`
	enabled := mustReadFile(t, "domain/testdata/direct.enabled.xml")
	for _, tc := range []struct{ name, machine, xml, words, fail, told, logged string }{
		{name: "start", words: "prepare begin", told: "start " + direct + "\n"},
		{name: "reconnect", words: "reconnect begin", told: "start " + direct + "\n"},
		{name: "release", machine: "web-1 test", words: "release end", told: "stop " + direct + "\n"},
		{name: "release of a clone", machine: "clone", words: "release end",
			logged: "fbppctl: clone uses the socket of " + direct},
		{name: "other operations", words: "migrate begin"},
		{name: "a machine without the device", words: "prepare begin",
			xml: mustReadFile(t, "domain/testdata/direct.xml")},
		{name: "a socket elsewhere", words: "prepare begin",
			xml: strings.Replace(enabled, "/run/fbpp/", "/srv/", 1)},
		{name: "what systemd refuses", words: "prepare begin", fail: "1",
			told: "start " + direct + "\n", logged: "fbppctl: start " + direct + ": exit status 1: no\n"},
		{name: "broken XML", words: "prepare begin", xml: "<domain>",
			logged: "fbppctl: read the machine's"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("FAIL", tc.fail)
			xml := tc.xml
			if xml == "" {
				xml = enabled
			}
			machine := tc.machine
			if machine == "" {
				machine = "-x web"
			}
			words := append([]string{machine}, strings.Fields(tc.words)...)
			told, logged, printed := hook(t, programs, xml, append(words, "-")...)
			as := strings.HasPrefix(logged, tc.logged) && (tc.logged != "" || logged == "")
			if told != tc.told || !as {
				t.Errorf("systemctl was told %q, and the log %q; want %q and %q", told, logged,
					tc.told, tc.logged)
			}
			if printed != "" {
				t.Errorf("it prints %q, which libvirt would take for XML", printed)
			}
		})
	}
}
