// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SecureBoot is what boots a guest under Secure Boot, as a Debian release has it: firmware that
// trusts Microsoft's keys, shim, which Microsoft has signed, and GRUB, which Debian has. Shim
// trusts Debian's key, with which the kernels of [FetchKernel] are signed as well.
type SecureBoot struct {
	dir string // the root of their files, in the cache
}

// FetchSecureBoot returns that of the Debian release that ships the kernel series, from the
// cache if it holds it. progress gets a line for each slow step; it may be nil.
func FetchSecureBoot(
	ctx context.Context, s Series, progress func(string),
) (*SecureBoot, error) {
	suite, err := s.release(X86_64)
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	b := &SecureBoot{filepath.Join(cache, "secureboot", suite)}
	err = makeOnce(b.dir, func(dir string) error {
		if progress != nil {
			progress(fmt.Sprintf("fetching Secure Boot's parts from Debian %s", suite))
		}
		scratch, err := os.MkdirTemp("", "fbpp-apt-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(scratch)
		source, err := newAPT(ctx, scratch, suite, X86_64)
		if err != nil {
			return err
		}
		for _, name := range []string{"ovmf", "shim-signed", "grub-efi-amd64-signed"} {
			if err := source.unpack(ctx, name, newest, dir); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fetch Secure Boot's parts: %w", err)
	}
	return b, nil
}

// Code is the path of the firmware's image. It needs a machine with system management mode.
func (b *SecureBoot) Code() string {
	return filepath.Join(b.dir, "usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
}

// Variables is the path of the firmware's variables, with Microsoft's keys and Secure Boot on.
func (b *SecureBoot) Variables() string {
	return filepath.Join(b.dir, "usr/share/OVMF/OVMF_VARS_4M.ms.fd")
}

// diskMiB holds the boot loaders, and any kernel with its initramfs.
const diskMiB = 64

// WriteDisk makes the raw image of a disk that boots a kernel with an initramfs and a command
// line. It runs mtools.
func (b *SecureBoot) WriteDisk(
	ctx context.Context, image string, k *Kernel, initramfs, line string,
) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write a disk for Secure Boot: %w", err)
		}
	}()
	config := image + ".cfg"
	menu := "linux /vmlinuz " + line + "\ninitrd /initrd\nboot\n"
	if err := os.WriteFile(config, []byte(menu), 0o600); err != nil {
		return err
	}
	defer os.Remove(config)
	empty, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(empty.Truncate(diskMiB<<20), empty.Close()); err != nil {
		return err
	}
	signed := filepath.Join(b.dir, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")
	for _, words := range [][]string{
		{"mformat", "-F", "::"},
		{"mmd", "::/EFI", "::/EFI/BOOT", "::/EFI/debian"},
		{"mcopy", filepath.Join(b.dir, "usr/lib/shim/shimx64.efi.signed"), "::/EFI/BOOT/BOOTX64.EFI"},
		{"mcopy", signed, "::/EFI/BOOT/grubx64.efi"},
		{"mcopy", config, "::/EFI/debian/grub.cfg"},
		{"mcopy", k.Image, "::/vmlinuz"},
		{"mcopy", initramfs, "::/initrd"},
	} {
		args := append([]string{"-i", image}, words[1:]...)
		if err := command(ctx, words[0], args...); err != nil {
			return err
		}
	}
	return nil
}
