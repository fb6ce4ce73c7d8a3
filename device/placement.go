// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/placement"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// Placement says where the guest's memory is, and calls each with the ranges of its classes, in the
// order in which they are worth moving. Of a guest whose kernel is not known only a sample tells
// classes apart. It may be called at any time, also during a migration, and one call waits for
// another. It fails with ErrNoMemory, with an error of begin or each, and when ctx ends.
func (d *Device) Placement(
	ctx context.Context, begin func(*placement.Memory) error, each func(placement.Ranges) error,
) error {
	select {
	case d.placing <- struct{}{}:
		defer func() { <-d.placing }()
	case <-ctx.Done():
		return fmt.Errorf("wait for who asks for the placement: %w", context.Cause(ctx))
	}
	where, all, err := d.whereMemoryIs()
	if err != nil {
		return err
	}
	sets := placement.NewSets(all)
	if err := d.observer.Sets(ctx, sets); err != nil {
		if ctx.Err() != nil || errors.Is(err, ErrNoMemory) {
			return err
		}
		where.Why, sets = err.Error(), placement.NewSets(all)
	}
	if x := d.freshSample(); x != nil {
		sets.Hot.Copy(x.Hot)
	}
	layout := placement.Arrange(all, sets, placement.MaxRanges)
	where.Free = layout.Free()
	if err := begin(where); err != nil {
		return err
	}
	return layout.Ranges(each)
}

// whereMemoryIs returns where the guest's memory is, and its ranges. It keeps none of it: who uses
// the files has to see whether they are still the same.
func (d *Device) whereMemoryIs() (*placement.Memory, []freeset.Range, error) {
	d.mu.Lock()
	m := d.memory
	if m != nil {
		m.Retain()
	}
	d.mu.Unlock()
	if m == nil {
		return nil, nil, ErrNoMemory
	}
	defer m.Release()
	where := new(placement.Memory)
	for _, f := range m.Files() {
		r, err := region(f)
		if err != nil {
			return nil, nil, err
		}
		where.Regions = append(where.Regions, r)
	}
	return where, ranges(m), nil
}

func region(f vhostuser.RegionFile) (placement.Region, error) {
	var s unix.Stat_t
	if err := unix.Fstat(f.FD, &s); err != nil {
		return placement.Region{}, fmt.Errorf("look at the file of guest memory: %w", err)
	}
	return placement.Region{
		GPA: f.Addr, Length: f.Size, FD: f.FD, Offset: f.Offset, Device: s.Dev, Inode: s.Ino,
	}, nil
}
