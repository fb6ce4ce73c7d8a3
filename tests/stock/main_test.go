// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// parts are shared by all tests. TestMain makes them, and the tests only read them.
var parts struct {
	configs  map[guest.Series]vm.Config // of guests, without devices
	accel    vm.Accel
	version  string // of QEMU
	rng, blk string // paths of the backends
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
	fmt.Fprintf(os.Stderr, "stock: %s, %s\n", parts.version, parts.accel)
	return m.Run()
}

const (
	qemu     = "/usr/bin/qemu-system-x86_64"
	examples = "github.com/fbpp-project/fbpp/vhostuser/examples/"
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
	parts.configs = make(map[guest.Series]vm.Config)
	for _, series := range []guest.Series{guest.Linux6_1, guest.Linux6_12} {
		if parts.configs[series], err = newConfig(ctx, series, init, dir); err != nil {
			return err
		}
	}
	parts.accel, err = vm.DetectAccel(ctx, parts.configs[guest.Linux6_12])
	return err
}

// newConfig makes a guest of Debian's kernel and programs.
func newConfig(ctx context.Context, series guest.Series, init, dir string) (vm.Config, error) {
	progress := func(line string) { fmt.Fprintln(os.Stderr, "stock:", line) }
	kernel, err := guest.FetchKernel(ctx, series, progress)
	if err != nil {
		return vm.Config{}, err
	}
	if kernel, err = kernel.WithModules(ctx, "virtio_rng", "virtio_blk", "ext4"); err != nil {
		return vm.Config{}, err
	}
	packages, err := guest.FetchPackages(ctx, series, progress,
		"coreutils", "mount", "util-linux", "e2fsprogs", "fio")
	if err != nil {
		return vm.Config{}, err
	}
	programs, err := packages.Programs(
		"cat", "mkdir", "od", "dmesg", "mount", "umount", "mke2fs", "e2fsck", "fio")
	if err != nil {
		return vm.Config{}, err
	}
	files := guest.NewInitramfs(init, kernel)
	files.Add(programs)
	archive, err := files.WriteTo(dir)
	return vm.Config{QEMU: qemu, Kernel: kernel, Initramfs: archive, MemoryMiB: 384}, err
}
