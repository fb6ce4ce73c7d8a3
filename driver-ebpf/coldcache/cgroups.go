// SPDX-License-Identifier: Apache-2.0

package coldcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Files of a group.
const (
	statFile    = "memory.stat"
	reclaimFile = "memory.reclaim"
	minFile     = "memory.min"
	lowFile     = "memory.low"
)

// maxGroups bounds how many groups are looked at.
const maxGroups = 10_000

// group is a control group.
type group struct {
	folder string
	around int      // index of the group right around it, or -1
	within []string // folders of the groups right within it
	// figures are those at the time of the walk.
	figures figures
	// protected says that it has a memory.min or memory.low, or is within such a group.
	// Reclaim of the group itself would ignore it.
	protected bool
}

// cgroups are the groups of a kernel: the root folder of cgroup v2, and the file that lists
// the swap.
type cgroups struct{ root, swapsFile string }

// groups implements kernel.
func (c cgroups) groups(ctx context.Context) ([]group, error) {
	var all []group
	index := make(map[string]int)
	err := filepath.WalkDir(c.root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil || len(all) == maxGroups:
			return fs.SkipAll
		case err != nil && path == c.root:
			return err
		case err != nil: // it is gone
			return fs.SkipDir
		case !e.IsDir():
			return nil
		}
		if _, err := os.Stat(filepath.Join(path, reclaimFile)); err != nil {
			return fs.SkipDir // the memory of these is counted in the group above
		}
		g := group{folder: path, around: -1}
		if g.figures, err = c.figures(path); gone(err) {
			return fs.SkipDir
		} else if err != nil {
			return err
		}
		if g.protected, err = protected(path); err != nil {
			return err
		}
		if i, ok := index[filepath.Dir(path)]; ok && path != c.root {
			g.around = i
			g.protected = g.protected || all[i].protected
			all[i].within = append(all[i].within, path)
		}
		index[path] = len(all)
		all = append(all, g)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	return all, nil
}

// protected says whether a group has memory of its own that the kernel is to spare. The
// root has no such files.
func protected(folder string) (bool, error) {
	for _, name := range []string{minFile, lowFile} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil && !gone(err) {
			return false, err
		}
		if amount := strings.TrimSpace(string(text)); amount != "" && amount != "0" {
			return true, nil
		}
	}
	return false, nil
}

// figures implements kernel.
func (c cgroups) figures(folder string) (figures, error) {
	text, err := os.ReadFile(filepath.Join(folder, statFile))
	if err != nil {
		return figures{}, err
	}
	return parseFigures(text, uint64(os.Getpagesize()))
}

// reclaim implements kernel. The file is not an os.File: that would take EAGAIN, by which
// the kernel says that it found less, for a reason to wait.
func (c cgroups) reclaim(folder string, bytes uint64, spare bool) (err error) {
	path := filepath.Join(folder, reclaimFile)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	order := fmt.Sprint(bytes)
	if spare {
		order += " swappiness=0"
	}
	if _, err := unix.Write(fd, []byte(order)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// swaps implements kernel. The first line of the file is a heading.
func (c cgroups) swaps() (bool, error) {
	text, err := os.ReadFile(c.swapsFile)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // a kernel without swap
	}
	return strings.Count(string(text), "\n") > 1, err
}
