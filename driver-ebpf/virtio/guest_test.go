// SPDX-License-Identifier: Apache-2.0

//go:build guest

// These tests run as root in a guest with `-device virtio-rng-pci,disable-legacy=on`.
// Build them with `go test -c -tags guest` and start the binary there.

package virtio

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
)

var rngID = ID{Vendor: 0x1af4, Device: 0x1044}

// mustFindRNG returns the PCI address of the device.
func mustFindRNG(t *testing.T) (bdf string) {
	t.Helper()
	found, err := Find(rngID)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("the guest has no virtio-rng-pci,disable-legacy=on")
	}
	return found[0]
}

func mustOpenRNG(t *testing.T, features uint64) *Device {
	t.Helper()
	opts := Options{Features: features, Queues: 1, Log: zaptest.NewLogger(t)}
	d, err := Open(mustFindRNG(t), rngID, opts)
	if err != nil {
		t.Fatal(err)
	}
	d.Start()
	return d
}

func mustRegion(t *testing.T, size int) *dma.Region {
	t.Helper()
	r, err := dma.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// mustWaitUsed takes the next chain back, waiting for interrupts.
func mustWaitUsed(t *testing.T, d *Device) (token int, written uint32) {
	t.Helper()
	for range 100 {
		token, written, ok, err := d.Queue(0).Used()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return token, written
		}
		if _, err := d.Wait(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the device interrupts and uses nothing")
	return 0, 0
}

func TestEntropyArrivesByInterrupt(t *testing.T) {
	for name, features := range map[string]uint64{"direct": 0, "indirect": FeatureIndirect} {
		t.Run(name, func(t *testing.T) {
			d := mustOpenRNG(t, features)
			defer d.Close()
			if got := d.Features()&FeatureIndirect != 0; got != (features != 0) {
				t.Fatalf("features %#x", d.Features())
			}
			r := mustRegion(t, 2*4096)
			seen := make(map[string]bool)
			for i := range 600 { // more than the queue has descriptors
				// Two slices in two pages make a chain.
				in := []dma.Slice{r.Slice(4096-16, 16), r.Slice(4096+64, 16)}
				clear(r.Bytes())
				if err := d.Queue(0).Add(i, nil, in); err != nil {
					t.Fatal(err)
				}
				d.Queue(0).Kick()
				token, written := mustWaitUsed(t, d)
				if token != i || written == 0 {
					t.Fatalf("chain %d came back as %d with %d bytes", i, token, written)
				}
				got := append(bytes.Clone(in[0].Bytes()), in[1].Bytes()...)[:written]
				zero := bytes.Equal(got, make([]byte, len(got)))
				if written >= 16 && (seen[string(got)] || zero) {
					t.Fatalf("entropy %x", got)
				}
				seen[string(got)] = true
			}
			if err := d.Healthy(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The device is bound to the kernel's own driver until it is taken. It is bound to that
// driver again afterwards, also when an attempt to take it fails.
func TestDeviceIsGivenBack(t *testing.T) {
	bdf := mustFindRNG(t)
	want := func(driver string) {
		t.Helper()
		if got, err := realHost().driver(bdf); err != nil || got != driver {
			t.Errorf("driver %q, error %v; want %q", got, err, driver)
		}
	}
	const kernels = "virtio-pci"
	want(kernels)
	d := mustOpenRNG(t, 0)
	want(uioDriver)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want(kernels)
	_, err := Open(bdf, ID{Vendor: 0x1af4, Device: 0x107f}, Options{})
	if !errors.Is(err, ErrOtherDevice) {
		t.Errorf("error %v, want ErrOtherDevice", err)
	}
	want(kernels)
	if _, err := Open(bdf, rngID, Options{Queues: 99}); err == nil {
		t.Error("a device has 99 queues")
	}
	want(kernels)
	override, err := realHost().binding(bdf)
	if err != nil || override.override != "" {
		t.Errorf("only %q may have it, %v", override.override, err)
	}
}

// When another process opens and closes the uio device, the kernel switches bus mastering
// off. The driver notices that without an interrupt.
func TestClosedUIODeviceIsNoticed(t *testing.T) {
	d := mustOpenRNG(t, 0)
	defer d.Close()
	fd, err := unix.Open(d.function.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	for err == nil { // it does not end by itself: the test would time out
		_, err = d.Wait(Forever)
	}
	if !errors.Is(err, ErrNeedsReset) {
		t.Fatalf("error %v, want ErrNeedsReset", err)
	}
}

func TestInterruptEndsWait(t *testing.T) {
	d := mustOpenRNG(t, 0)
	defer d.Close()
	go d.Interrupt()
	if _, err := d.Wait(Forever); !errors.Is(err, ErrInterrupted) {
		t.Fatalf("error %v, want ErrInterrupted", err)
	}
	if changed, err := d.Wait(time.Millisecond); changed || err != nil {
		t.Fatalf("an idle device: changed %v, error %v", changed, err)
	}
}

func TestDeviceWritesToTheMappedMemory(t *testing.T) {
	// The device writes to physical addresses, and the data appears in our mapping. With
	// a wrong address from the pagemap a slice would keep its zeroes.
	d := mustOpenRNG(t, 0)
	defer d.Close()
	r := mustRegion(t, 64*os.Getpagesize())
	for page := range 64 {
		s := r.Page(page).Slice(4000, 96)
		if err := d.Queue(0).Add(page, nil, []dma.Slice{s}); err != nil {
			t.Fatal(err)
		}
		d.Queue(0).Kick()
		_, written := mustWaitUsed(t, d)
		if bytes.Equal(s.Bytes()[:written], make([]byte, written)) {
			t.Fatalf("page %d: nothing arrived", page)
		}
	}
}
