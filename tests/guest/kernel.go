// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// guestModules are the modules that every guest loads. virtio_pci binds the device
// before the agent takes it over, as in an ordinary Debian guest.
func guestModules() []string { return []string{"virtio_pci", "uio_pci_generic"} }

// Kernel is an unpacked kernel in the cache, and the modules that a guest loads.
type Kernel struct {
	Series  Series
	Version string   // of the Debian package
	Image   string   // path of vmlinuz
	Modules []string // paths of uncompressed modules, in the order to load them

	dir string // in the cache
}

// FetchKernel returns the newest kernel of a series that the cache holds, and
// fetches Debian's current one when it holds none. It is for the architecture of [Target]. Setting
// FBPP_REFRESH_KERNELS makes it ask Debian again. progress gets a line for
// each slow step; it may be nil.
func FetchKernel(ctx context.Context, s Series, progress func(string)) (*Kernel, error) {
	arch, err := Target()
	if err != nil {
		return nil, err
	}
	from, err := s.origin(arch)
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	base := filepath.Join(cache, "linux", arch.folder(), string(s))
	current := filepath.Join(base, "current")
	if os.Getenv("FBPP_REFRESH_KERNELS") == "" {
		version, err := os.ReadFile(current)
		if err == nil {
			if k, err := loadKernel(ctx, base, s, strings.TrimSpace(string(version))); err == nil {
				return k, nil
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the kernel cache: %w", err)
		}
	}
	if progress != nil {
		progress(fmt.Sprintf("fetching Debian's %s kernel", s))
	}
	version, err := downloadKernel(ctx, base, from, arch)
	if err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", s, err)
	}
	k, err := loadKernel(ctx, base, s, version)
	if err != nil {
		return nil, err
	}
	return k, replaceFile(current, []byte(version+"\n"))
}

// downloadKernel puts the current kernel of a meta package into base/version.
func downloadKernel(
	ctx context.Context, base string, from origin, arch Arch,
) (version string, err error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(base, ".apt-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	source, err := newAPT(ctx, scratch, from.suite, arch)
	if err != nil {
		return "", err
	}
	image, version, err := source.depends(ctx, from.metaPackage, "linux-image-")
	if err != nil {
		return "", err
	}
	names, err := source.kernelPackages(ctx, image)
	if err != nil {
		return "", err
	}
	return version, makeOnce(filepath.Join(base, version), func(dir string) error {
		tree := filepath.Join(scratch, "tree")
		for _, name := range names {
			if err := source.unpack(ctx, name, version, tree); err != nil {
				return err
			}
		}
		return installKernel(tree, dir)
	})
}

// kernelPackages returns the packages with the kernel's files. That is the image
// package, or in newer releases two packages that it depends on: one with the image,
// and one with the modules.
func (a *apt) kernelPackages(ctx context.Context, image string) ([]string, error) {
	fields, err := a.run(ctx, "apt-cache", "show", "--no-all-versions", image)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", image, err)
	}
	var names []string
	for _, prefix := range []string{"linux-binary-", "linux-modules-"} {
		if name, _, ok := parseDepends(fields, prefix); ok {
			names = append(names, name)
		}
	}
	if len(names) != 2 {
		return []string{image}, nil
	}
	return names, nil
}

// installKernel puts the image and all modules of an unpacked package into dir,
// the modules as Debian compressed them.
func installKernel(tree, dir string) error {
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err == nil && len(images) == 0 { // in newer releases
		images, err = filepath.Glob(filepath.Join(tree, "usr/lib/modules/*/vmlinuz"))
	}
	if err != nil || len(images) != 1 {
		return fmt.Errorf("find the kernel image: %q (%v)", images, err)
	}
	if err := os.Rename(images[0], filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "modules"), 0o755); err != nil {
		return err
	}
	// In a system /lib is a link to /usr/lib, but packages may use either.
	for _, lib := range []string{"usr/lib/modules", "lib/modules"} {
		found, err := indexModules(filepath.Join(tree, lib))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.Rename(path, filepath.Join(dir, "modules", filepath.Base(path))); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadKernel describes a kernel that the cache holds.
func loadKernel(ctx context.Context, base string, s Series, version string) (*Kernel, error) {
	if version == "" {
		return nil, errors.New("load kernel: no version")
	}
	dir := filepath.Join(base, version)
	k := &Kernel{Series: s, Version: version, Image: filepath.Join(dir, "vmlinuz"), dir: dir}
	if _, err := os.Stat(k.Image); err != nil {
		return nil, fmt.Errorf("load kernel: %w", err)
	}
	return k.WithModules(ctx)
}

// WithModules returns the kernel with further modules to load, by their names.
// If the package has no module of a name, it is taken to be built into the kernel.
func (k *Kernel) WithModules(ctx context.Context, names ...string) (*Kernel, error) {
	wanted := append(guestModules(), names...)
	dir := filepath.Join(k.dir, strings.Join(wanted, "+"))
	err := makeOnce(dir, func(dir string) error {
		available, err := indexModules(filepath.Join(k.dir, "modules"))
		if err != nil {
			return err
		}
		order, err := loadOrder(ctx, available, wanted)
		for i, m := range order {
			path := filepath.Join(dir, fmt.Sprintf("%02d-%s.ko", i, m.name))
			err = errors.Join(err, os.WriteFile(path, m.content, 0o644))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("uncompress the kernel's modules: %w", err)
	}
	more := *k
	more.Modules, err = filepath.Glob(filepath.Join(dir, "*.ko")) // sorted
	if err != nil || len(more.Modules) == 0 {
		return nil, fmt.Errorf("load kernel: no modules in %s (%v)", dir, err)
	}
	return &more, nil
}

// replaceFile replaces a file atomically: a reader sees the old or the new content.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
