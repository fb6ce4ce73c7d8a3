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

// Series names a long-term kernel series that the project supports.
type Series string

// The supported series, by the Debian release that ships them.
const (
	Linux6_1  Series = "6.1"  // Debian 12
	Linux6_12 Series = "6.12" // Debian 13
)

// AllSeries returns every supported series, oldest first.
func AllSeries() []Series { return []Series{Linux6_1, Linux6_12} }

// suite returns the Debian suite that ships the series.
func (s Series) suite() (string, error) {
	switch s {
	case Linux6_1:
		return "bookworm", nil
	case Linux6_12:
		return "trixie", nil
	}
	return "", fmt.Errorf("kernel series %q is not one of %v", s, AllSeries())
}

// guestModules are the modules a guest loads, with what they depend on.
// virtio_pci is there because a Debian guest has it, and it holds the device
// before the agent takes it over.
func guestModules() []string { return []string{"virtio_pci", "uio_pci_generic"} }

// Kernel is an unpacked kernel: what a guest boots and loads.
type Kernel struct {
	Series  Series
	Version string   // of the Debian package
	Image   string   // path of vmlinuz
	Modules []string // paths of uncompressed modules, in the order to load them
}

// FetchKernel returns the newest kernel of a series that the cache holds, and
// fetches Debian's current one when it holds none. Setting
// FBPP_REFRESH_KERNELS makes it ask Debian again. progress gets a line for
// each slow step; it may be nil.
func FetchKernel(ctx context.Context, s Series, progress func(string)) (*Kernel, error) {
	suite, err := s.suite()
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	base := filepath.Join(cache, "kernels", string(s))
	current := filepath.Join(base, "current")
	if os.Getenv("FBPP_REFRESH_KERNELS") == "" {
		version, err := os.ReadFile(current)
		if err == nil {
			if k, err := loadKernel(base, s, strings.TrimSpace(string(version))); err == nil {
				return k, nil
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the kernel cache: %w", err)
		}
	}
	if progress != nil {
		progress(fmt.Sprintf("fetching Debian's %s kernel", s))
	}
	version, err := downloadKernel(ctx, base, suite)
	if err != nil {
		return nil, fmt.Errorf("fetch kernel %s: %w", s, err)
	}
	k, err := loadKernel(base, s, version)
	if err != nil {
		return nil, err
	}
	return k, replaceFile(current, []byte(version+"\n"))
}

// downloadKernel puts the suite's current cloud kernel into base/version.
func downloadKernel(ctx context.Context, base, suite string) (version string, err error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(base, ".apt-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	source, err := newAPT(ctx, scratch, suite)
	if err != nil {
		return "", err
	}
	name, version, err := source.depends(ctx, "linux-image-cloud-amd64", "linux-image-")
	if err != nil {
		return "", err
	}
	return version, makeOnce(filepath.Join(base, version), func(dir string) error {
		tree := filepath.Join(scratch, "tree")
		if err := source.unpack(ctx, name, version, tree); err != nil {
			return err
		}
		return installKernel(ctx, tree, dir)
	})
}

// installKernel copies the image and the modules of an unpacked package to dir,
// the modules uncompressed and numbered in the order to load them.
func installKernel(ctx context.Context, tree, dir string) error {
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("find the kernel image: %q (%v)", images, err)
	}
	// /lib and /usr/lib are one place in a system, and two in packages.
	var available map[string]string
	for _, lib := range []string{"usr/lib/modules", "lib/modules"} {
		found, err := indexModules(filepath.Join(tree, lib))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			available = found
			break
		}
	}
	order, err := loadOrder(ctx, available, guestModules())
	if err != nil {
		return err
	}
	for i, m := range order {
		path := filepath.Join(dir, fmt.Sprintf("%02d-%s.ko", i, m.name))
		if err := os.WriteFile(path, m.content, 0o644); err != nil {
			return err
		}
	}
	image, err := os.ReadFile(images[0])
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "vmlinuz"), image, 0o644)
}

// loadKernel describes a kernel that the cache holds.
func loadKernel(base string, s Series, version string) (*Kernel, error) {
	if version == "" {
		return nil, errors.New("load kernel: no version")
	}
	dir := filepath.Join(base, version)
	image := filepath.Join(dir, "vmlinuz")
	if _, err := os.Stat(image); err != nil {
		return nil, fmt.Errorf("load kernel: %w", err)
	}
	modules, err := filepath.Glob(filepath.Join(dir, "*.ko")) // sorted
	if err != nil || len(modules) == 0 {
		return nil, fmt.Errorf("load kernel: no modules in %s (%v)", dir, err)
	}
	return &Kernel{Series: s, Version: version, Image: image, Modules: modules}, nil
}

// replaceFile writes a file so that a reader sees the old or the new content.
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
