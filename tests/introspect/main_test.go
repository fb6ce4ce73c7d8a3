// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

var (
	// keep saves the memory of guests to files, to work on the library without booting guests.
	keep = flag.String(
		"keep",
		"",
		"put the memory of each guest, and its view of it, into this `folder`",
	)
	soak = flag.Bool("soak", false, "compare with guests that differ in one thing only, too")
)

// qemu is Debian's own: these tests need no patches.
const qemu = "/usr/bin/qemu-system-x86_64"

// shared is what all tests use.
type shared struct {
	dir   string
	accel vm.Accel
	init  string // path of the guest's /init
	view  string // path of guestview
}

var parts shared

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "fbpp-introspect-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = parts.prepare(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "introspect: cannot start:", err)
		return 1
	}
	return m.Run()
}

func (p *shared) prepare(ctx context.Context, dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("guests need root: they read the kernel images and use /dev/kvm")
	}
	if _, err := os.Stat(qemu); err != nil {
		return errors.New("Debian's QEMU is missing: install qemu-system-x86")
	}
	p.dir = dir
	var err error
	if p.init, err = guest.BuildProgram(ctx, guest.InitPackage, dir); err != nil {
		return err
	}
	const view = "github.com/fbpp-project/fbpp/tests/introspect/guestview"
	if p.view, err = guest.BuildProgram(ctx, view, dir); err != nil {
		return err
	}
	kernel, err := p.kernel(ctx, guest.Linux6_12)
	if err != nil {
		return err
	}
	archive, err := guest.NewInitramfs(p.init, kernel).WriteTo(dir)
	if err != nil {
		return err
	}
	p.accel, err = vm.DetectAccel(ctx, vm.Config{QEMU: qemu, Kernel: kernel, Initramfs: archive})
	return err
}

// kernel returns a kernel with the modules for a disk.
func (p *shared) kernel(ctx context.Context, s guest.Series) (*guest.Kernel, error) {
	k, err := guest.FetchKernel(
		ctx,
		s,
		func(line string) { fmt.Fprintln(os.Stderr, "introspect:", line) },
	)
	if err != nil {
		return nil, err
	}
	return k.WithModules(ctx, "virtio_blk")
}
