// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// parts are the programs that the hosts get. config says what the guest consists of.
// TestMain makes them, and the tests only read them.
var (
	parts  *lab.Lab
	config vm.Config
)

func TestMain(m *testing.M) {
	if err := open(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "libvirt: cannot start:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "libvirt: %s\n", parts.Version)
	os.Exit(m.Run())
}

func open(ctx context.Context) (err error) {
	progress := func(line string) { fmt.Fprintln(os.Stderr, "libvirt:", line) }
	if parts, err = lab.Open(ctx, progress); err != nil {
		return err
	}
	kernel, err := parts.Kernel(guest.Linux6_12).WithModules(ctx, "virtio_blk", "virtio_net")
	if err != nil {
		return err
	}
	packages, err := guest.FetchPackages(ctx, guest.Linux6_12, progress,
		"coreutils", "fio", "iproute2", "iputils-ping")
	if err != nil {
		return err
	}
	programs, err := packages.Programs("cat", "fio", "ip", "ping")
	if err != nil {
		return err
	}
	config, err = parts.ConfigFor(kernel, memoryMiB, programs)
	return err
}
