// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Packages are Debian packages, unpacked with their dependencies. They are not
// configured: no maintainer script has run.
type Packages struct {
	dir  string // the root of their files, in the cache
	arch Arch
}

// FetchPackages returns the named packages of the Debian release that ships the
// kernel series, for the architecture of [Target], from the cache if it holds them. Setting
// FBPP_REFRESH_PACKAGES makes it fetch Debian's current ones. progress gets a line for each
// slow step; it may be nil.
func FetchPackages(
	ctx context.Context, s Series, progress func(string), names ...string,
) (*Packages, error) {
	arch, err := Target()
	if err != nil {
		return nil, err
	}
	suite, err := s.release(arch)
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256([]byte(strings.Join(names, "\n")))
	dir := filepath.Join(cache, "packages", arch.folder(), suite, hex.EncodeToString(key[:6]))
	p := &Packages{dir: dir, arch: arch}
	if os.Getenv("FBPP_REFRESH_PACKAGES") != "" {
		if err := os.RemoveAll(p.dir); err != nil {
			return nil, fmt.Errorf("refresh packages: %w", err)
		}
	}
	err = makeOnce(p.dir, func(dir string) error {
		if progress != nil {
			progress(fmt.Sprintf("fetching %s from Debian %s", strings.Join(names, ", "), suite))
		}
		return downloadPackages(ctx, dir, suite, arch, names)
	})
	if err != nil {
		return nil, fmt.Errorf("fetch packages %q: %w", names, err)
	}
	return p, nil
}

// downloadPackages unpacks the packages and what they depend on into dir.
func downloadPackages(
	ctx context.Context, dir, suite string, arch Arch, names []string,
) error {
	scratch, err := os.MkdirTemp("", "fbpp-apt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	source, err := newAPT(ctx, scratch, suite, arch)
	if err != nil {
		return err
	}
	debs, err := source.downloadAll(ctx, names)
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", deb, err, out)
		}
	}
	return os.RemoveAll(filepath.Join(dir, "usr", "share")) // most of it, and none of it runs
}

// Programs returns the named programs for a guest's /bin, with all libraries that they
// are linked to. It does not find files that a program opens at run time, such as
// plug-ins and data.
func (p *Packages) Programs(names ...string) (Initramfs, error) {
	libraries, err := p.indexLibraries()
	if err != nil {
		return nil, err
	}
	files := make(Initramfs)
	for _, name := range names {
		path, err := p.find(name)
		if err != nil {
			return nil, err
		}
		files["bin/"+name] = path
		if err := addLibraries(files, path, p.arch.libraryDir(), libraries); err != nil {
			return nil, fmt.Errorf("collect the libraries of %s: %w", name, err)
		}
	}
	return files, nil
}

// Add adds the files of another initramfs. They replace those with the same path.
func (i Initramfs) Add(other Initramfs) { maps.Copy(i, other) }

// find returns the path of a program. /bin is part of /usr since Debian 13.
func (p *Packages) find(name string) (string, error) {
	for _, dir := range []string{"usr/bin", "usr/sbin", "bin", "sbin"} {
		path := filepath.Join(p.dir, dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("find program %s: no package has it", name)
}

// addLibraries adds the libraries that the ELF file at path is linked to, in dir, and the
// dynamic linker.
func addLibraries(files Initramfs, path, dir string, available map[string]string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if s := f.Section(".interp"); s != nil {
		interp, err := s.Data()
		if err != nil {
			return err
		}
		linker := strings.Trim(string(interp), "/\x00")
		source, ok := available[filepath.Base(linker)]
		if !ok {
			return fmt.Errorf("no package has %s", linker)
		}
		files[linker] = source
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range needed {
		source, ok := available[name]
		if !ok {
			return fmt.Errorf("no package has %s", name)
		}
		if _, ok := files[dir+name]; ok {
			continue
		}
		files[dir+name] = source
		if err := addLibraries(files, source, dir, available); err != nil {
			return err
		}
	}
	return nil
}

// indexLibraries maps the names of shared libraries to their paths. If two have one
// name it takes the one that is less deep: the other needs a newer processor.
func (p *Packages) indexLibraries() (map[string]string, error) {
	found := make(map[string]string)
	for _, lib := range []string{"usr/lib", "lib"} {
		root := filepath.Join(p.dir, lib)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := d.Name()
			if d.IsDir() || !strings.Contains(name, ".so") {
				return nil
			}
			if have, ok := found[name]; !ok || strings.Count(path, "/") < strings.Count(have, "/") {
				found[name] = path
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list libraries: %w", err)
		}
	}
	return found, nil
}
