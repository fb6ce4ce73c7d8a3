// SPDX-License-Identifier: Apache-2.0

package coldcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// The most and the least that the kernel is asked for at once, in bytes. Less is not worth
// a look at the figures. More would take too long between two looks at the clock.
const (
	mostAtOnce  = 16 << 20
	leastAtOnce = 512 << 10
)

// Why a guest cannot drop cache.
var (
	errNoCgroup  = errors.New("cgroup v2 with its memory controller is not at /sys/fs/cgroup")
	errNoReclaim = errors.New("the kernel has no memory.reclaim (before Linux 5.19)")
	errSwap      = errors.New("swap is on, and this kernel would use it (before Linux 6.9)")
)

// errTime says why a guest dropped none.
var errTime = errors.New("no cache is dropped: the time ended before the first step")

// Dropper drops cold cache. It must be used by one goroutine at a time.
type Dropper struct {
	kernel kernel
	// spares says that the kernel can be told to spare the memory of processes.
	spares bool
}

// kernel is what the dropper needs of the kernel. A group is named by its folder.
type kernel interface {
	// groups returns the groups, each after the one around it. When ctx ends it returns
	// those that it has found.
	groups(ctx context.Context) ([]group, error)
	figures(folder string) (figures, error)
	// reclaim asks for memory of a group. With spare it takes none of processes.
	reclaim(folder string, bytes uint64, spare bool) error
	swaps() (bool, error)
}

// Open returns a dropper, or nil and an error that says why this guest cannot drop cache.
func Open() (*Dropper, error) {
	c := cgroups{"/sys/fs/cgroup", "/proc/swaps"}
	return open(c, c.root)
}

func open(k kernel, root string) (*Dropper, error) {
	d := &Dropper{kernel: k}
	if _, err := k.figures(root); errors.Is(err, os.ErrNotExist) {
		return nil, errNoCgroup
	} else if err != nil {
		return nil, err
	}
	// A request for nothing has no effect. An older kernel refuses the word swappiness.
	switch err := k.reclaim(root, 0, true); {
	case err == nil:
		d.spares = true
	case errors.Is(err, os.ErrNotExist):
		return nil, errNoReclaim
	case errors.Is(err, unix.EINVAL):
		if err := k.reclaim(root, 0, false); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	if err := d.mayDrop(); err != nil {
		return nil, err
	}
	return d, nil
}

// mayDrop returns an error if the kernel could swap memory out.
func (d *Dropper) mayDrop() error {
	if d.spares {
		return nil
	}
	on, err := d.kernel.swaps()
	if err == nil && on {
		err = errSwap
	}
	return err
}

// Drop drops at most so many bytes of cold cache, until ctx ends. It calls dropped with the
// bytes of each step. It looks at ctx between its steps only. A step takes as long as the
// kernel's reclaim does. After an error of one group it goes on with the others. It is an
// error that ctx ended before the first step.
func (d *Dropper) Drop(ctx context.Context, most uint64, dropped func(bytes uint64)) error {
	// Swap may have been added since the last time.
	if err := d.mayDrop(); err != nil {
		return err
	}
	groups, err := d.kernel.groups(ctx)
	if err != nil {
		return err
	}
	stepped := false
	counted := func(bytes uint64) {
		stepped = true
		most -= bytes
		dropped(bytes)
	}
	for _, g := range worthwhile(groups) {
		if ctx.Err() != nil {
			break
		}
		groupErr := d.dropFrom(ctx, &g, most, counted)
		if !gone(groupErr) && !errors.Is(groupErr, errEnded) {
			err = errors.Join(err, groupErr)
		}
	}
	if ctx.Err() != nil && !stepped {
		err = errors.Join(err, errTime)
	}
	return err
}

// gone says whether an error says that a group is no more.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// dropFrom drops cold cache of one group that does not belong to a group within it.
func (d *Dropper) dropFrom(
	ctx context.Context, g *group, most uint64, dropped func(bytes uint64),
) error {
	before, err := d.look(ctx, g)
	if err != nil {
		return err
	}
	sum := uint64(0)
	count := func(bytes uint64) {
		bytes = min(bytes, most-sum)
		sum += bytes
		dropped(bytes)
	}
	start, atOnce := before.taken, uint64(mostAtOnce)
	if len(g.within) > 0 {
		atOnce = leastAtOnce // until it is seen whose cache the kernel takes
	}
	for left := before.cold; ctx.Err() == nil; {
		// Some kernels take twice of what they are asked for.
		ask := min(atOnce, left/2, (most-sum)/2) &^ (uint64(os.Getpagesize()) - 1)
		if ask < leastAtOnce {
			break
		}
		promised := ask
		err := d.kernel.reclaim(g.folder, ask, d.spares)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			promised = 0
		} else if err != nil {
			return err
		}
		now, err := d.look(ctx, g)
		if err != nil {
			count(promised)
			return err
		}
		// The figures may be old: the kernel updates them for each 64 pages per CPU, or
		// each 2 seconds. They may count what others had reclaimed, too.
		taken := max(less(now.taken, start+sum), promised)
		count(taken)
		visible, within := less(now.taken, before.taken), less(now.within, before.within)
		if taken == 0 || within > visible/2 {
			break // nothing more can be had, or only from groups within
		}
		if visible > 0 {
			atOnce = min(2*atOnce, mostAtOnce)
		}
		// The kernel counts hot pages as cold when it wants more: so the cold ones that
		// are left cannot be more than they were before.
		left = min(less(left, taken), now.cold)
		before = now
	}
	return nil
}

// less returns a-b, or 0 if that is below 0.
func less(a, b uint64) uint64 { return a - min(a, b) }

// errEnded is never returned to the caller of Drop.
var errEnded = errors.New("the time ended")

// view is what a group has of its own, and what was reclaimed, in bytes.
type view struct {
	cold   uint64 // of the group's own
	taken  uint64 // so far, of the group and those within it
	within uint64 // so far, of those within it
}

// look returns errEnded if ctx ends first: there may be thousands of groups within.
func (d *Dropper) look(ctx context.Context, g *group) (v view, err error) {
	all, err := d.kernel.figures(g.folder)
	if err != nil {
		return v, err
	}
	v = view{cold: all.cold, taken: all.taken}
	for _, folder := range g.within {
		if ctx.Err() != nil {
			return v, errEnded
		}
		f, err := d.kernel.figures(folder)
		if gone(err) {
			continue
		}
		if err != nil {
			return v, err
		}
		v.cold = less(v.cold, f.cold)
		v.within += f.taken
	}
	if all.soiled {
		v.cold = 0
	}
	return v, nil
}

// figures are the kernel's about a group and those within it, in bytes.
type figures struct {
	cold  uint64 // clean cache that was not used lately and that nobody has mapped, at least
	taken uint64 // reclaimed so far
	// soiled says that much of the cache is dirty. Reclaim that finds only dirty pages at
	// the tail of the kernel's list has them written back.
	soiled bool
}

// maxSoiled is the part of the inactive cache that may be dirty.
const maxSoiled = 4

// parseFigures reads a memory.stat.
func parseFigures(text []byte, page uint64) (figures, error) {
	var cold, dirty, writeback, mapped, taken uint64
	wanted := map[string]*uint64{
		"inactive_file": &cold, "file_dirty": &dirty, "file_writeback": &writeback,
		"file_mapped": &mapped, "pgsteal": &taken,
	}
	for line := range bytes.Lines(text) {
		name, number, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		value, ok := wanted[string(name)]
		if !ok {
			continue
		}
		var err error
		if *value, err = strconv.ParseUint(string(number), 10, 64); err != nil {
			return figures{}, fmt.Errorf("read memory.stat: %w", err)
		}
		delete(wanted, string(name))
	}
	if len(wanted) > 0 {
		return figures{}, fmt.Errorf("read memory.stat: it lacks %v",
			slices.Sorted(maps.Keys(wanted)))
	}
	return figures{
		cold: less(cold, dirty+writeback+mapped), taken: taken * page,
		soiled: dirty > cold/maxSoiled,
	}, nil
}
