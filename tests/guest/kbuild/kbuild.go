// SPDX-License-Identifier: Apache-2.0

// Package kbuild has a guest build a part of the Linux kernel over and over: the modules of
// one folder of the kernel's source, with Debian's compiler, the kernel's own makefiles and
// the headers and configuration of a kernel of Debian.
//
// A compiler writes the same bytes each time, so a guest can tell by its objects whether it
// is sound.
package kbuild

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where the disk has the parts of a build.
const (
	Headers = "usr/src/linux"     // the kernel's headers, makefiles and configuration
	Sources = "usr/src/" + folder // what is built
)

// Folder is the folder of the kernel's source that is built. It is a small one, because an
// emulated guest is slow, and a module by the configuration of Debian's cloud kernels.
const Folder = "fs/" + folder

const folder = "zonefs"

// MountPoints are folders that the disk has to have.
func MountPoints() []string { return []string{"dev", "proc", "tmp"} }

// Mount mounts the disk, and gives the programs on it what they share with the guest.
func Mount(disk, root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", disk, err)
	}
	if err := unix.Mount(disk, root, "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s: %w", disk, err)
	}
	for _, name := range MountPoints() {
		err := unix.Mount("/"+name, filepath.Join(root, name), "", unix.MS_BIND, "")
		if err != nil {
			return fmt.Errorf("mount /%s below %s: %w", name, root, err)
		}
	}
	return nil
}

// Objects maps the path of each object file to the SHA-256 of its content.
type Objects map[string][sha256.Size]byte

// Build builds everything once, by the programs below root and with a job for each
// processor. What it writes is in /tmp, and removed at the end.
func Build(root string) (Objects, error) {
	const work = "/tmp/build"
	below := filepath.Join(root, work)
	defer os.RemoveAll(below)
	if err := os.CopyFS(below, os.DirFS(filepath.Join(root, Sources))); err != nil {
		return nil, fmt.Errorf("copy the sources: %w", err)
	}
	cmd := exec.Command("/usr/bin/make", "-C", "/"+Headers, "M="+work,
		fmt.Sprintf("-j%d", runtime.NumCPU()), "modules")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", Folder, err, end(out))
	}
	return digest(below)
}

// end returns the end of a program's output, which says why it failed.
func end(out []byte) []byte { return bytes.TrimSpace(out[max(0, len(out)-4096):]) }

// digest reads the object files and modules below dir.
func digest(dir string) (Objects, error) {
	found := make(Objects)
	files := os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err != nil || ext != ".o" && ext != ".ko" {
			return err
		}
		content, err := fs.ReadFile(files, path)
		found[path] = sha256.Sum256(content)
		return err
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("there are none")
	}
	if err != nil {
		return nil, fmt.Errorf("read the objects: %w", err)
	}
	return found, nil
}
