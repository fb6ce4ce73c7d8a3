// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testBDF = "0000:00:05.0"

// fakeHost returns a sysfs of plain files. It does not react to writes.
func fakeHost(t *testing.T, files map[string]string) host {
	t.Helper()
	h := host{sys: t.TempDir(), dev: t.TempDir(), write: writeFile}
	for name, content := range files {
		path := filepath.Join(h.sys, "bus/pci", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestDevicesAreFoundByIdentity(t *testing.T) {
	h := fakeHost(t, map[string]string{
		"devices/0000:00:09.0/vendor": "0x1af4\n", "devices/0000:00:09.0/device": "0x107f\n",
		"devices/0000:00:05.0/vendor": "0x1af4\n", "devices/0000:00:05.0/device": "0x107f\n",
		"devices/0000:00:03.0/vendor": "0x1af4\n", "devices/0000:00:03.0/device": "0x1044\n",
		"devices/0000:00:02.0/vendor": "0x8086\n", "devices/0000:00:02.0/device": "0x107f\n",
		"devices/0000:00:01.0/uevent": "half unplugged",
	})
	got, err := h.find(ID{0x1af4, 0x107f})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0000:00:05.0", "0000:00:09.0"}, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestDeviceIsIdentified(t *testing.T) {
	h := fakeHost(t, map[string]string{
		"devices/" + testBDF + "/vendor": "0x1af4\n", "devices/" + testBDF + "/device": "0x1044\n",
		"devices/0000:00:06.0/vendor": "0x12345\n", "devices/0000:00:06.0/device": "0x1044\n",
	})
	got, err := h.identify(testBDF)
	if err != nil || got != (ID{0x1af4, 0x1044}) || got.String() != "1af4:1044" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := h.identify("0000:00:09.0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v where no device is", err)
	}
	if got, err := h.identify("0000:00:06.0"); err == nil {
		t.Errorf("%v is the identity of nonsense", got)
	}
}

func TestUIOPath(t *testing.T) {
	h := fakeHost(t, map[string]string{"devices/" + testBDF + "/uio/uio3/name": "uio_pci_generic"})
	if path, err := h.uioPath(testBDF); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s, %v: the node is not there", path, err)
	}
	want := filepath.Join(h.dev, "uio3")
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if path, err := h.uioPath(testBDF); err != nil || path != want {
		t.Fatalf("%s, %v; want %s", path, err, want)
	}
}

func TestModuleIsFoundCompressedOrNot(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	other := filepath.Join(second, "other.ko")
	for _, path := range []string{
		filepath.Join(first, "uio.ko.xz"), filepath.Join(second, "uio.ko"), other,
	} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dirs := []string{first, second}
	if got, err := findModule(dirs, "uio"); err != nil || got != filepath.Join(first, "uio.ko.xz") {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := findModule(dirs, "other"); err != nil || got != other {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := findModule(dirs, "absent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s, %v", got, err)
	}
}
