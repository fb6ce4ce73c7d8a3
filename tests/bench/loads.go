// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/memory"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// apply has the guest do what its load says.
func (l load) apply(ctx context.Context, v *vm.VM, s sizes, say func(string)) error {
	fill := func(mib int) error {
		_, err := v.Fill(ctx, mib)
		return err
	}
	keep := func(mib int) error {
		if err := v.Keep(ctx, mib); err != nil {
			return err
		}
		if rest := s.Touched - mib; rest > 0 {
			return fill(rest)
		}
		return nil
	}
	switch l {
	case fresh:
		return nil
	case midLoad:
		return keep(s.Mid)
	case highLoad:
		return keep(s.High)
	case fragmented:
		return v.Fragment(ctx, s.Touched)
	case pageCache:
		if err := fill(s.Touched); err != nil {
			return err
		}
		var disks []string
		for i := range cacheDisks {
			disks = append(disks, fmt.Sprintf("/dev/vd%c", 'a'+i))
		}
		return v.Cache(ctx, disks...)
	case database:
		if err := fill(s.Touched); err != nil {
			return err
		}
		return startDatabase(ctx, v, s.Database)
	case kernelBuild:
		if err := fill(s.Touched); err != nil {
			return err
		}
		return startBuild(ctx, v, say)
	}
	return fill(s.Touched)
}

// files are what the guest needs for the load beside the usual programs.
func (l load) files(
	ctx context.Context, s guest.Series, say func(string),
) (map[string]string, error) {
	if l == database {
		return databaseFiles(ctx, s, say)
	}
	return nil, nil
}

// check has a load that can tell say whether the migrated guest is sound.
func (l load) check(ctx context.Context, v *vm.VM) error {
	switch l {
	case database:
		return checkDatabase(ctx, v)
	case kernelBuild:
		return checkBuild(ctx, v)
	}
	return nil
}

// pool sizes the guest's integrity program, which finds lost pages. It writes little
// during the migration, because repeated pages would hide the effect of free pages. The
// exception is the load that measures such writes.
func (l load) pool() memory.PoolOptions {
	if l == churning {
		return memory.PoolOptions{Pages: 64 << 10, Seed: 1, Rate: 20_000}
	}
	return memory.PoolOptions{Pages: 1024, Seed: 1, Rate: 500}
}

// cacheDisks is how many disks the guest reads to fill its page cache. All have the same
// image, which takes less of the host's memory.
const cacheDisks = 8

// modules are what the guest's kernel needs to know.
func (l load) modules() []string {
	switch l {
	case pageCache:
		return []string{"virtio_blk"}
	case kernelBuild:
		return []string{"virtio_blk", "ext4"}
	}
	return nil
}

// configure gives the guest the disks that the load needs.
func (l load) configure(ctx context.Context, c *vm.Config, r *runner) error {
	switch l {
	case pageCache:
		image := filepath.Join(r.dir, "disk.img")
		if err := writeImage(image, int64(r.sizes.Cache)<<20/cacheDisks); err != nil {
			return err
		}
		addDisks(c, image, cacheDisks)
	case kernelBuild:
		image, err := guest.FetchBuildDisk(ctx, r.series, r.say)
		if err != nil {
			return err
		}
		addDisks(c, image, 1)
	}
	return nil
}

// addDisks gives the guest so many disks with the same image: /dev/vda, /dev/vdb and so on.
func addDisks(c *vm.Config, image string, n int) {
	for i := range n {
		c.Options = append(c.Options, "-drive",
			fmt.Sprintf("if=none,id=disk%d,file=%s,format=raw,read-only=on,cache=none", i, image))
		c.Devices = append(c.Devices, fmt.Sprintf("virtio-blk-pci,drive=disk%d", i))
	}
}

// writeImage makes a file of this size without zero pages, unless the file exists.
func writeImage(path string, size int64) error {
	if info, err := os.Stat(path); err == nil && info.Size() == size {
		return nil
	}
	block, err := memory.Fill(size, 1)
	if err != nil {
		return fmt.Errorf("make the disk image: %w", err)
	}
	defer block.Free()
	if err := os.WriteFile(path, block.Bytes(), 0o644); err != nil {
		return fmt.Errorf("make the disk image: %w", err)
	}
	return nil
}
