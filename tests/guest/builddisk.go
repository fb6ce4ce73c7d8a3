// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest/kbuild"
)

// buildDiskLayout changes with what this file puts on the disk. An older disk is made anew then.
const buildDiskLayout = "1"

// buildDiskSize is that of the file system. The image has holes where it is empty.
const buildDiskSize = "1G"

// FetchBuildDisk returns the image of a disk from which a guest builds a part of the kernel:
// see package kbuild. All on it is of the Debian release that ships the kernel series, and
// so is the kernel that is built. It is in the cache together with the packages that it is
// made of. progress gets a line for each slow step; it may be nil.
func FetchBuildDisk(
	ctx context.Context, s Series, progress func(string),
) (image string, err error) {
	arch, err := Target()
	if err != nil {
		return "", err
	}
	// Those before the last two are what the kernel's makefiles call. The compiler comes
	// with the headers.
	p, err := FetchPackages(ctx, s, progress, "make", "dash", "coreutils", "sed", "grep",
		"findutils", "mawk", "linux-headers-cloud-"+arch.Debian(), "linux-source")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(p.dir, "disk-"+buildDiskLayout+"-"+filepath.Base(kbuild.Folder))
	image = filepath.Join(dir, "image")
	err = makeOnce(dir, func(dir string) error {
		if progress != nil {
			progress("making a disk with a compiler and a part of the kernel")
		}
		root := filepath.Join(dir, "root")
		if err := p.buildRoot(ctx, root); err != nil {
			return err
		}
		err := command(ctx, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal",
			"-d", root, filepath.Join(dir, filepath.Base(image)), buildDiskSize)
		return errors.Join(err, os.RemoveAll(root))
	})
	if err != nil {
		return "", fmt.Errorf("make a disk to build from: %w", err)
	}
	return image, nil
}

// buildRoot makes the files of the disk in a new folder, with links to those of the packages.
func (p *Packages) buildRoot(ctx context.Context, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"usr", "bin", "sbin", "lib", "lib64"} {
		from, to := filepath.Join(p.dir, dir), filepath.Join(root, dir)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			// In a system it is a link since Debian 12, but no package has it.
			if err := os.Symlink("usr/"+dir, to); err != nil {
				return err
			}
			continue
		}
		if err := command(ctx, "cp", "--archive", "--link", from, to); err != nil {
			return err
		}
	}
	for _, dir := range kbuild.MountPoints() {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := unpackSource(ctx, root); err != nil {
		return err
	}
	kernel, err := only(filepath.Join(root, "usr/src/linux-headers-*-cloud-*"))
	if err != nil {
		return err
	}
	// Links that a package's scripts would make, and a name without a version.
	return errors.Join(
		linkUnlessThere("dash", filepath.Join(root, "bin/sh")),
		linkUnlessThere("mawk", filepath.Join(root, "usr/bin/awk")),
		os.Symlink(filepath.Base(kernel), filepath.Join(root, kbuild.Headers)),
		os.RemoveAll(filepath.Join(root, "usr/lib/modules")),
		os.RemoveAll(filepath.Join(root, "lib/modules")),
	)
}

// unpackSource replaces the archive of the kernel's source by the part of it that is built.
func unpackSource(ctx context.Context, root string) error {
	archive, err := only(filepath.Join(root, "usr/src/linux-source-*.tar.xz"))
	if err != nil {
		return err
	}
	release := strings.TrimSuffix(filepath.Base(archive), ".tar.xz")
	into := filepath.Join(root, kbuild.Sources)
	err = command(ctx, "tar", "--extract", "--file", archive, "--no-same-owner",
		"--directory", filepath.Dir(into), "--strip-components=2", release+"/"+kbuild.Folder)
	return errors.Join(err, os.Remove(archive))
}

// only returns the one path that matches a pattern.
func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("find %s: got %q (%v)", filepath.Base(pattern), found, err)
	}
	return found[0], nil
}

func linkUnlessThere(target, path string) error {
	err := os.Symlink(target, path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// command runs a program of this machine. Its output becomes part of the error.
func command(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", program, err, out)
	}
	return nil
}
