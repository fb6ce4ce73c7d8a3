// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// A guest whose kernel is not found has memory of one class, and the reason is said.
func TestPlacementOfAGuestThatIsNotLinux(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.awaitMemory()
	var got *placement.Memory
	var ranges []freeset.Range
	err := m.dev.Placement(t.Context(), func(is *placement.Memory) error {
		got = is
		return nil
	}, func(r placement.Ranges) error {
		if r.Class != placement.Other {
			t.Errorf("there is memory of the class %s", r.Class)
		}
		ranges = append(ranges, r.Ranges...)
		return nil
	})
	m.must(err)
	if got.Why == "" || got.Free != 0 || len(got.Regions) != 2 {
		t.Fatalf("the memory is %+v", got)
	}
	// The two blocks are one range of guest memory.
	want := []freeset.Range{{GPA: got.Regions[0].GPA, Length: 16 << 20}}
	if !slices.Equal(ranges, want) {
		t.Errorf("the ranges are %v, want %v", ranges, want)
	}
	for _, r := range got.Regions {
		if r.Length != 8<<20 || r.Inode == 0 || r.FD < 0 {
			t.Errorf("a region is %+v", r)
		}
	}
	err = m.dev.Placement(t.Context(), func(*placement.Memory) error { return io.ErrClosedPipe }, nil)
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("who asks has gone: %v", err)
	}
}

func TestPlacementWithoutMemory(t *testing.T) {
	d := device.New(device.Options{})
	if err := d.Placement(t.Context(), nil, nil); !errors.Is(err, device.ErrNoMemory) {
		t.Errorf("without a frontend: %v", err)
	}
}

// One look is made at a time, and who waits may give up.
func TestPlacementsWaitForEachOther(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.awaitMemory()
	within := make(chan struct{})
	leave := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- m.dev.Placement(t.Context(), func(*placement.Memory) error {
			close(within)
			<-leave
			return io.EOF
		}, nil)
	}()
	<-within
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.dev.Placement(ctx, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a second one that gives up: %v", err)
	}
	close(leave)
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// awaitMemory waits until the device has guest memory.
func (m *machine) awaitMemory() {
	m.t.Helper()
	m.hello(protocol.StatusOK, 0) // the queues come after the memory
}
