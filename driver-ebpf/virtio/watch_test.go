// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// setCommand writes the PCI command register, as another process could do.
func setCommand(t *testing.T, d *Device, command uint16) {
	t.Helper()
	var p [2]byte
	binary.LittleEndian.PutUint16(p[:], command)
	if _, err := d.function.config.WriteAt(p[:], pciCommand); err != nil {
		t.Fatal(err)
	}
}

// waitAndLook waits until the device was looked at. A signal, such as one of Go's runtime, may end
// a wait before.
func waitAndLook(d *Device) error {
	for before := d.lookAfter; d.lookAfter == before; {
		if _, err := d.Wait(Forever); err != nil {
			return err
		}
	}
	return nil
}

// What other processes do to the device is noticed when the kernel reports that they use
// its files. Without such a report it is noticed at the next regular look.
func TestWaitNoticesWhatOthersDo(t *testing.T) {
	for name, c := range map[string]struct {
		status  uint8
		command uint16
		want    error
	}{
		"nothing":              {0x0f, commandMemory | commandMaster, nil},
		"no bus mastering":     {0x0f, commandMemory, ErrNeedsReset},
		"no registers":         {0xff, commandMaster, ErrGone},
		"a reset":              {0, commandMemory | commandMaster, ErrNeedsReset},
		"a stop, and all else": {0x0b, commandMemory | commandMaster, ErrNeedsReset},
	} {
		t.Run(name, func(t *testing.T) {
			d := newWaiter(t)
			d.common.write8(regStatus, c.status)
			setCommand(t, d, c.command)
			raise(t, d.watch)
			if err := waitAndLook(d); !errors.Is(err, c.want) {
				t.Errorf("told of it: error %v, want %v", err, c.want)
			}
			d.lookAfter = time.Millisecond
			if err := waitAndLook(d); !errors.Is(err, c.want) {
				t.Errorf("not told of it: error %v, want %v", err, c.want)
			}
		})
	}
}

// The kernel reports a close before it has executed it. So one look is not enough.
func TestWaitLooksSoonAndThenMoreRarely(t *testing.T) {
	d := newWaiter(t)
	raise(t, d.watch)
	var after []time.Duration
	for range 3 {
		if err := waitAndLook(d); err != nil {
			t.Fatal(err)
		}
		after = append(after, d.lookAfter)
	}
	if after[0] != lookMin || after[1] != 2*lookMin || after[2] != 4*lookMin {
		t.Errorf("looked again after %v", after)
	}
	for range 20 {
		if err := d.look(); err != nil {
			t.Fatal(err)
		}
	}
	if d.lookAfter != lookMax {
		t.Errorf("at last it looks every %v, want %v", d.lookAfter, lookMax)
	}
	setCommand(t, d, 0)
	if _, err := d.Wait(time.Millisecond); err != nil {
		t.Errorf("error %v of a wait that ends before it is time to look", err)
	}
}

// A masked interrupt line is unmasked again. Another process may have masked it, or the
// kernel because of an interrupt that has just come.
func TestMaskedInterruptLineIsUnmasked(t *testing.T) {
	d := newWaiter(t)
	setCommand(t, d, commandMemory|commandMaster|commandNoINTx)
	d.lookAfter = time.Millisecond
	if err := waitAndLook(d); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Wait(Forever); err != nil {
		t.Fatal(err)
	}
	if command, err := d.function.readCommand(); err != nil || command&commandNoINTx != 0 {
		t.Errorf("PCI command register %#x, %v", command, err)
	}
}

// The kernel reports what other processes do to the files, and not what the driver itself
// does.
func TestWatch(t *testing.T) {
	folder, uio := t.TempDir(), filepath.Join(t.TempDir(), "uio0")
	config := filepath.Join(folder, "config")
	for _, path := range []string{uio, config} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ours, err := os.OpenFile(config, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	fd, err := openWatch(uio, folder)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	use := func(path string, flag int) func() error {
		return func() error {
			f, err := os.OpenFile(path, flag, 0)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	write := func() error {
		_, err := ours.WriteAt([]byte{1}, 0)
		return err
	}
	for _, c := range []struct {
		name string
		do   func() error
		news bool
	}{
		{"the uio device is read", use(uio, os.O_RDONLY), true},
		{"the configuration is written", use(config, os.O_WRONLY), true},
		{"the configuration is read", use(config, os.O_RDONLY), false},
		{"we write to the configuration", write, false},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != nil || (n == 1) != c.news {
			t.Errorf("%s: %d descriptors are readable, %v", c.name, n, err)
		}
		drainWatch(fd)
	}
	if fd, err := openWatch(filepath.Join(folder, "absent"), folder); err == nil || fd != -1 {
		t.Errorf("descriptor %d, %v where there is nothing to watch", fd, err)
	}
}
