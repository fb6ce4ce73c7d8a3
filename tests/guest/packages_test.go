// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// machinePackages takes this machine's root for a tree of unpacked packages.
func machinePackages() *Packages { return &Packages{dir: "/", arch: X86_64} }

func TestProgramsComeWithTheirLibraries(t *testing.T) {
	files, err := machinePackages().Programs("tar")
	if err != nil {
		t.Fatal(err)
	}
	if files["bin/tar"] == "" || files["lib64/ld-linux-x86-64.so.2"] == "" {
		t.Errorf("the program or its linker is missing in %q", files)
	}
	// The dynamic linker says which libraries it finds.
	linker := files["lib64/ld-linux-x86-64.so.2"]
	out, err := exec.CommandContext(t.Context(), linker, "--list", files["bin/tar"]).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, _, found := strings.Cut(strings.TrimSpace(line), " => ")
		if found && !strings.HasPrefix(name, "/") && files[X86_64.libraryDir()+name] == "" {
			t.Errorf("library %s is missing in %q", name, files)
		}
	}
}

func TestImagesAreJoined(t *testing.T) {
	i := Initramfs{"init": "a"}
	i.Add(Initramfs{"bin/x": "b"})
	if i["init"] != "a" || i["bin/x"] != "b" {
		t.Errorf("got %q", i)
	}
}

func TestAProgramThatNoPackageHasIsMissed(t *testing.T) {
	_, err := machinePackages().Programs("no-such-program")
	if err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("got %v", err)
	}
}

func TestALibraryThatNoPackageHasIsMissed(t *testing.T) {
	available, err := machinePackages().indexLibraries()
	if err != nil {
		t.Fatal(err)
	}
	path, err := machinePackages().find("tar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libc.so.6", "ld-linux-x86-64.so.2"} {
		without := make(map[string]string)
		for k, v := range available {
			if k != name {
				without[k] = v
			}
		}
		err := addLibraries(Initramfs{}, path, X86_64.libraryDir(), without)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestUnknownSeriesHasNoPackages(t *testing.T) {
	_, err := FetchPackages(t.Context(), "2.4", nil, "fio")
	if err == nil || slices.Contains(AllSeries(), "2.4") {
		t.Errorf("got %v", err)
	}
}
