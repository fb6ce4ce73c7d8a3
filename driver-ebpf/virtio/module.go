// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ensureUIO loads uio_pci_generic unless it is loaded: with modprobe if there is one, else from
// the folders of the kernel's modules.
func (h host) ensureUIO() error {
	driver := filepath.Join(h.sys, "bus/pci/drivers", uioDriver)
	if _, err := os.Stat(driver); err == nil {
		return nil
	}
	err := exec.Command("modprobe", uioDriver).Run()
	if err != nil {
		var uts unix.Utsname
		if err := unix.Uname(&uts); err != nil {
			return os.NewSyscallError("uname", err)
		}
		release := unix.ByteSliceToString(uts.Release[:])
		const all = "/lib/modules"
		dirs := []string{filepath.Join(all, release, "kernel/drivers/uio"), all}
		err = errors.Join(fmt.Errorf("modprobe: %w", err), loadModules(dirs, "uio", uioDriver))
	}
	if _, statErr := os.Stat(driver); statErr != nil {
		return fmt.Errorf("load %s (%w): %w", uioDriver, ErrNoUIO, err)
	}
	return nil
}

// loadModules loads modules in order, each from the first folder that has it.
func loadModules(dirs []string, names ...string) error {
	for _, name := range names {
		path, err := findModule(dirs, name)
		if err != nil {
			return err
		}
		if err := loadModule(path); err != nil {
			return err
		}
	}
	return nil
}

func findModule(dirs []string, name string) (string, error) {
	for _, dir := range dirs {
		for _, suffix := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
			path := filepath.Join(dir, name+suffix)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	where := strings.Join(dirs, ", ")
	return "", fmt.Errorf("find module %s in %s: %w", name, where, os.ErrNotExist)
}

// loadModule loads a module. The kernel decompresses it, which needs
// CONFIG_MODULE_DECOMPRESS.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", path, os.NewSyscallError("finit_module", err))
	}
	return nil
}
