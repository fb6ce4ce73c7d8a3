// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOneProcessDrivesTheDevice(t *testing.T) {
	const override, unbind = "devices/" + testBDF + "/driver_override", "drivers/" + uioDriver + "/unbind"
	h := fakeHost(t, map[string]string{
		"devices/" + testBDF + "/config":        string(make([]byte, pciConfigLegacy)),
		"devices/" + testBDF + "/driver":        "-> ../../drivers/" + uioDriver,
		"devices/" + testBDF + "/uio/uio3/name": uioDriver,
		override:                                "",
		unbind:                                  "",
	})
	if err := os.WriteFile(filepath.Join(h.dev, "uio3"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantFile := func(name, want string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(h.sys, "bus/pci", name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	first, err := openFunction(h, testBDF)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFunction(h, testBDF); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("error %v of a device that is driven", err)
	}
	wantFile(override, "") // the first one's device is not taken away
	wantFile(unbind, "")

	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	wantFile(override, "\n")
	wantFile(unbind, testBDF)
	next, err := openFunction(h, testBDF)
	if err != nil {
		t.Fatalf("a device that was given back: %v", err)
	}
	if err := next.close(); err != nil {
		t.Fatal(err)
	}
}

// A device that is not bound is not unbound either, and its lock is let go.
func TestDeviceThatCannotBeBoundIsLeft(t *testing.T) {
	h := fakeHost(t, map[string]string{
		"devices/" + testBDF + "/config":          "",
		"devices/" + testBDF + "/driver_override": "",
		"drivers/" + uioDriver + "/unbind":        "",
		"drivers_probe":                           "",
	})
	for range 2 {
		if _, err := openFunction(h, testBDF); err == nil || errors.Is(err, unix.EWOULDBLOCK) {
			t.Fatalf("error %v, want that of binding", err)
		}
	}
}
