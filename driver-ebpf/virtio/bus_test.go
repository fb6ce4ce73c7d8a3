// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

var testID = ID{Vendor: 0x1af4, Device: 0x107f}

// withFunction gives the kernel's device a configuration space and a uio device.
func (k *fakeKernel) withFunction(t *testing.T, id ID) {
	t.Helper()
	space := makeConfig(qemuCaps...)
	binary.LittleEndian.PutUint16(space[pciVendor:], id.Vendor)
	binary.LittleEndian.PutUint16(space[pciDevice:], id.Device)
	if err := errors.Join(
		os.WriteFile(k.device(testBDF, "config"), space, 0o600),
		os.MkdirAll(k.device(testBDF, "uio/uio3"), 0o700),
		os.WriteFile(filepath.Join(k.dev, "uio3"), nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcessCannotTakeTheDevice(t *testing.T) {
	was, taken := binding{"virtio-pci", ""}, binding{uioDriver, uioDriver}
	k := newFakeKernel(t, was)
	k.withFunction(t, testID)
	first, err := openFunction(k.host, testBDF, testID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFunction(k.host, testBDF, testID); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("error %v of a device that is driven", err)
	}
	k.want(t, taken) // the first user keeps its device
	if command, err := first.readCommand(); err != nil || command != commandMemory|commandMaster {
		t.Errorf("PCI command register %#x, %v", command, err)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	k.want(t, was)
	next, err := openFunction(k.host, testBDF, testID)
	if err != nil {
		t.Fatalf("a device that was given back: %v", err)
	}
	if err := next.close(); err != nil {
		t.Fatal(err)
	}
}

// A device is identified before it is taken. Another device is not touched.
func TestOtherDevicesAreNotTouched(t *testing.T) {
	was := binding{"virtio-pci", ""}
	for name, c := range map[string]struct {
		id   ID
		want error
	}{
		"virtio-rng":     {ID{0x1af4, 0x1044}, ErrOtherDevice},
		"another vendor": {ID{0x8086, 0x107f}, ErrOtherDevice},
		"unplugged":      {ID{0xffff, 0xffff}, ErrOtherDevice},
	} {
		t.Run(name, func(t *testing.T) {
			k := newFakeKernel(t, was)
			k.withFunction(t, c.id)
			if _, err := openFunction(k.host, testBDF, testID); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if k.want(t, was); k.writes != 0 {
				t.Errorf("%d writes", k.writes)
			}
		})
	}
	t.Run("one that is no VIRTIO 1.x device", func(t *testing.T) {
		k := newFakeKernel(t, was)
		k.withFunction(t, testID)
		space := make([]byte, pciConfigLegacy)
		binary.LittleEndian.PutUint16(space[pciVendor:], testID.Vendor)
		binary.LittleEndian.PutUint16(space[pciDevice:], testID.Device)
		if err := os.WriteFile(k.device(testBDF, "config"), space, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openFunction(k.host, testBDF, testID); !errors.Is(err, errNotModern) {
			t.Errorf("error %v, want errNotModern", err)
		}
		if k.want(t, was); k.writes != 0 {
			t.Errorf("%d writes", k.writes)
		}
	})
}

// Whatever fails after a device was taken, it is bound to its driver again, and the next
// process can lock it.
func TestDeviceThatCannotBeOpenedIsGivenBack(t *testing.T) {
	was := binding{"virtio-pci", ""}
	k := newFakeKernel(t, was)
	k.withFunction(t, testID)
	if err := os.Remove(k.device(testBDF, "uio/uio3")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := openFunction(k.host, testBDF, testID)
		if err == nil || errors.Is(err, unix.EWOULDBLOCK) {
			t.Fatalf("error %v, want that of the uio device", err)
		}
		k.want(t, was)
	}
}
