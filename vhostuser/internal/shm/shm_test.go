// SPDX-License-Identifier: Apache-2.0

package shm

import (
	"errors"
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func memfd(t *testing.T, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

func mustMap(t *testing.T, fd int, off, size uint64) *Mapping {
	t.Helper()
	m, err := Map(fd, off, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmap(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestMapAnyAlignedPart(t *testing.T) {
	fd := memfd(t, 3*4096)
	whole := mustMap(t, fd, 0, 3*4096).Bytes()
	for i := range whole {
		whole[i] = byte(i / 8)
	}
	for _, off := range []uint64{0, 8, 4088, 4096, 8000} {
		b := mustMap(t, fd, off, 100).Bytes()
		if len(b) != 100 || cap(b) != 100 || b[0] != byte(off/8) {
			t.Errorf("offset %d: %d bytes, the first is %d", off, len(b), b[0])
		}
	}
}

func TestMapRefusesWhatDoesNotFit(t *testing.T) {
	fd := memfd(t, 4096)
	for _, tt := range []struct {
		name      string
		off, size uint64
	}{
		{"nothing", 0, 0},
		{"an odd offset", 1, 8},
		{"one byte too many", 8, 4089},
		{"an offset beyond the file", 4096, 8},
		{"a sum that wraps", math.MaxUint64 - 7, 16},
		{"a size that wraps", 8, math.MaxUint64},
		{"a size of almost everything", 0, math.MaxInt64},
	} {
		if _, err := Map(fd, tt.off, tt.size); err == nil {
			t.Errorf("%s was mapped", tt.name)
		}
	}
	if _, err := Map(-1, 0, 4096); !errors.Is(err, unix.EBADF) {
		t.Errorf("no file: %v", err)
	}
	ev, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ev)
	if _, err := Map(ev, 0, 4096); !errors.Is(err, unix.ENODEV) {
		t.Errorf("eventfd: %v", err)
	}
	if _, err := Map(ev, 0, math.MaxInt64); err == nil {
		t.Error("half the address space was mapped")
	}
}

func TestAtomicsAgreeWithTheByteOrder(t *testing.T) {
	m := mustMap(t, memfd(t, 4096), 0, 4096)
	b := m.Bytes()
	Store32(b, 4, 0x11223344)
	if Load16(b, 4) != 0x3344 || Load16(b, 6) != 0x1122 || Load32(b, 4) != 0x11223344 {
		t.Errorf("bytes %x", b[4:8])
	}
	// This slice begins in the middle of a word of 8 bytes.
	if Load16(b[6:], 0) != 0x1122 {
		t.Error("upper half of a word was misread")
	}
	Or32(b, 4, 1<<31)
	if b[7] != 0x91 {
		t.Errorf("bytes %x", b[4:8])
	}
	if Swap32(b, 4, 7) != 0x91223344 || b[4] != 7 {
		t.Errorf("bytes %x", b[4:8])
	}
	if !Aligned(b, 4096) || Aligned(b[2:], 4) || !Aligned(b[2:], 2) {
		t.Error("alignment is misjudged")
	}
	if Addr(b[1:]) != Addr(b)+1 {
		t.Error("addresses are not consecutive")
	}
}

func TestGuardTurnsFaultsIntoErrors(t *testing.T) {
	fd := memfd(t, 2*4096)
	b := mustMap(t, fd, 0, 2*4096).Bytes()
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	for name, f := range map[string]func(){
		"load":   func() { buf[0] = b[4096] },
		"store":  func() { b[5000] = 1 },
		"copy":   func() { copy(buf, b[4096:]) },
		"atomic": func() { Or32(b, 4096, 1) },
		"16 bit": func() { Load16(b, 4096) },
	} {
		err := Guard(func() error {
			f()
			return nil
		})
		var fault *Fault
		if !errors.As(err, &fault) || fault.Addr < uintptr(Addr(b))+4096 || fault.Error() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Guard(func() error { b[0] = 1; return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("without a fault: %v", err)
	}
}

func TestGuardNests(t *testing.T) {
	fd := memfd(t, 4096)
	b := mustMap(t, fd, 0, 4096).Bytes()
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	inner := errors.New("inner ended")
	var fault *Fault
	if err := Guard(func() error {
		if err := Guard(func() error { b[0] = 1; return nil }); err == nil {
			return inner
		}
		b[1] = 1 // the outer guard still holds
		return nil
	}); !errors.As(err, &fault) {
		t.Errorf("got %v", err)
	}
}

func TestGuardLetsOtherPanicsPass(t *testing.T) {
	for name, f := range map[string]func(){
		"own":         func() { panic("own") },
		"nil pointer": func() { var p *int; *p = 1 },
		"index":       func() { var s []int; _ = s[len(os.Args)] },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the panic was swallowed", name)
				}
			}()
			_ = Guard(func() error { f(); return nil })
		}()
	}
}
