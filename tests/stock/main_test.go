// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// parts are what all tests share. They are made once, before the first test,
// and only read afterwards.
var parts struct {
	config   vm.Config // of the guest, without devices
	version  string    // of QEMU
	rng, blk string    // paths of the backends
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fbpp-stock-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = prepare(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stock: cannot start:", err)
		return 1
	}
	fmt.Fprintf(os.Stderr, "stock: %s, %s\n", parts.version, parts.config.Accel)
	return m.Run()
}

const (
	qemu     = "/usr/bin/qemu-system-x86_64"
	examples = "github.com/fbpp-project/fbpp/vhostuser/examples/"
	series   = guest.Linux6_12
)

// prepare builds or fetches every part.
func prepare(ctx context.Context, dir string) error {
	out, err := exec.CommandContext(ctx, qemu, "-version").Output()
	if err != nil {
		return errors.New("Debian's QEMU is missing: install qemu-system-x86")
	}
	parts.version, _, _ = strings.Cut(string(out), "\n")

	var init string
	for pkg, path := range map[string]*string{
		guest.InitPackage:           &init,
		examples + "vhost-user-rng": &parts.rng,
		examples + "vhost-user-blk": &parts.blk,
	} {
		if *path, err = guest.BuildProgram(ctx, pkg, dir); err != nil {
			return err
		}
	}
	progress := func(line string) { fmt.Fprintln(os.Stderr, "stock:", line) }
	kernel, err := guest.FetchKernel(ctx, series, progress)
	if err != nil {
		return err
	}
	if kernel, err = kernel.WithModules(ctx, "virtio_rng", "virtio_blk", "ext4"); err != nil {
		return err
	}
	packages, err := guest.FetchPackages(ctx, series, progress, "coreutils", "mount", "util-linux", "e2fsprogs", "fio")
	if err != nil {
		return err
	}
	programs, err := packages.Programs("cat", "mkdir", "od", "dmesg", "mount", "umount", "mke2fs", "e2fsck", "fio")
	if err != nil {
		return err
	}
	files := guest.NewInitramfs(init, kernel)
	files.Add(programs)
	archive, err := files.WriteTo(filepath.Join(dir, "guest"))
	if err != nil {
		return err
	}
	parts.config = vm.Config{QEMU: qemu, Kernel: kernel, Initramfs: archive, MemoryMiB: 384}
	parts.config.Accel, err = vm.DetectAccel(ctx, parts.config)
	if parts.config.Accel == vm.TCG {
		// QEMU 7.2 now and then spoils the flags of an interrupt that follows
		// cmpxchg16b, which the kernel's allocator uses where there is one.
		parts.config.Options = []string{"-cpu", "max,-erms,-fsrm,-cx16"}
	}
	return err
}
