// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeKernel is a sysfs with one device. It reacts to writes as the kernel does.
type fakeKernel struct {
	host
	knows   string   // the driver that knows the device by its identity
	refuses []string // drivers whose probe of the device fails
	writes  int
	failAt  int // this write fails; 0: none
}

var errWrite = errors.New("the kernel refuses the write")

// newFakeKernel returns a fakeKernel whose device has the binding was.
func newFakeKernel(t *testing.T, was binding) *fakeKernel {
	t.Helper()
	files := map[string]string{
		"devices/" + testBDF + "/driver_override": was.override + "\n",
		"drivers_probe": "",
	}
	if was.override == "" {
		files["devices/"+testBDF+"/driver_override"] = "(null)\n"
	}
	if was.driver != "" {
		files["devices/"+testBDF+"/driver"] = "-> ../../drivers/" + was.driver
	}
	for _, driver := range []string{"virtio-pci", "vfio-pci", uioDriver} {
		files["drivers/"+driver+"/bind"], files["drivers/"+driver+"/unbind"] = "", ""
	}
	k := &fakeKernel{host: fakeHost(t, files), knows: "virtio-pci"}
	k.host.write = k.store
	return k
}

func (k *fakeKernel) store(path, text string) error {
	if k.writes++; k.writes == k.failAt {
		return errWrite
	}
	driver := k.device(testBDF, "driver")
	b, err := k.binding(testBDF)
	if err != nil {
		return err
	}
	switch filepath.Base(path) {
	case "driver_override":
		return os.WriteFile(path, []byte(text), 0o600)
	case "unbind":
		if _, err := os.Stat(path); err != nil {
			return err
		}
		return os.Remove(driver)
	case "drivers_probe":
		wanted := k.knows
		if b.override != "" {
			wanted = b.override
		}
		if b.driver != "" || wanted == "" || slices.Contains(k.refuses, wanted) {
			return nil
		}
		return os.Symlink("../../drivers/"+wanted, driver)
	case "bind":
		wanted := filepath.Base(filepath.Dir(path))
		if b.driver != "" || wanted != b.override && (b.override != "" || wanted != k.knows) {
			return unix.ENODEV
		}
		return os.Symlink("../../drivers/"+wanted, driver)
	}
	return errors.New("write to " + path)
}

func (k *fakeKernel) want(t *testing.T, want binding) {
	t.Helper()
	if got, err := k.binding(testBDF); err != nil || got != want {
		t.Errorf("the device is %+v, %v; want %+v", got, err, want)
	}
}

// bindings are the ways in which a device may be bound before the agent takes it.
var bindings = map[string]binding{
	"the driver that knows it":     {"virtio-pci", ""},
	"nobody":                       {"", ""},
	"one that was chosen for it":   {"vfio-pci", "vfio-pci"},
	"nobody, though one is chosen": {"", "vfio-pci"},
}

func TestDeviceIsTakenAndGivenBack(t *testing.T) {
	for name, was := range bindings {
		t.Run("from "+name, func(t *testing.T) {
			k := newFakeKernel(t, was)
			got, err := k.take(testBDF)
			if err != nil || got != was {
				t.Fatalf("took it from %+v, %v; want %+v", got, err, was)
			}
			k.want(t, binding{uioDriver, uioDriver})
			if err := k.giveBack(testBDF, got); err != nil {
				t.Fatal(err)
			}
			k.want(t, was)
		})
	}
}

func TestDeviceThatIsBoundToUIOIsNotRebound(t *testing.T) {
	was := binding{uioDriver, uioDriver}
	k := newFakeKernel(t, was)
	got, err := k.take(testBDF)
	if err := errors.Join(err, k.giveBack(testBDF, got)); err != nil {
		t.Fatal(err)
	}
	if k.want(t, was); k.writes != 0 {
		t.Errorf("%d writes", k.writes)
	}
}

// Whatever fails while a device is taken, it is bound to its driver again.
func TestDeviceThatCannotBeTakenIsGivenBack(t *testing.T) {
	for name, was := range bindings {
		t.Run("to "+name, func(t *testing.T) {
			k := newFakeKernel(t, was)
			k.refuses = []string{uioDriver}
			if _, err := k.take(testBDF); err == nil || !strings.Contains(err.Error(), uioDriver) {
				t.Errorf("error %v of a device that %s will not have", err, uioDriver)
			}
			k.want(t, was)
			for failAt := 1; ; failAt++ {
				k := newFakeKernel(t, was)
				k.failAt = failAt
				_, err := k.take(testBDF)
				if err == nil {
					return
				}
				if !errors.Is(err, errWrite) {
					t.Errorf("write %d fails: error %v", failAt, err)
				}
				k.want(t, was)
			}
		})
	}
}

func TestChangesOfOtherProcessesToTheDeviceAreKept(t *testing.T) {
	was := binding{"virtio-pci", ""}
	k := newFakeKernel(t, was)
	if _, err := k.take(testBDF); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"driver_override": "vfio-pci", "driver/unbind": testBDF,
	} {
		if err := k.store(k.device(testBDF, path), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.store(filepath.Join(k.sys, "bus/pci/drivers_probe"), testBDF); err != nil {
		t.Fatal(err)
	}
	if err := k.giveBack(testBDF, was); err != nil {
		t.Fatal(err)
	}
	k.want(t, binding{"vfio-pci", "vfio-pci"})

	if err := os.RemoveAll(k.device(testBDF)); err != nil {
		t.Fatal(err)
	}
	if err := k.giveBack(testBDF, was); err != nil {
		t.Errorf("error %v of a device that was unplugged", err)
	}
}
