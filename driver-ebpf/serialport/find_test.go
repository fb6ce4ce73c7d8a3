// SPDX-License-Identifier: Apache-2.0

package serialport

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ports map[string]string // content of the file "name" by port
		want  string            // "": there is none
	}{
		{"no port at all", nil, ""},
		{"ports of others", map[string]string{"vport0p1": "org.qemu.guest_agent.0\n"}, ""},
		{"one whose name only begins like it", map[string]string{"vport0p1": name + "0\n"}, ""},
		{"one among others", map[string]string{
			"vport0p1": "org.qemu.guest_agent.0\n", "vport1p2": name + "\n",
		}, "/dev/vport1p2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			class := t.TempDir()
			// A port that is a console has no file "name".
			if err := os.Mkdir(filepath.Join(class, "vport0p0"), 0o755); err != nil {
				t.Fatal(err)
			}
			for port, content := range tc.ports {
				dir := filepath.Join(class, port)
				err1 := os.Mkdir(dir, 0o755)
				err2 := os.WriteFile(filepath.Join(dir, "name"), []byte(content), 0o644)
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
			}
			got, err := find(class, "/dev")
			if got != tc.want || errors.Is(err, os.ErrNotExist) != (tc.want == "") {
				t.Fatalf("found %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}
