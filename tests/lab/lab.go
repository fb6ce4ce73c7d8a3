// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Lab holds the parts. Nothing changes it once it is open, so it is safe for
// concurrent use.
type Lab struct {
	Root    string // path of the checkout
	QEMU    string // path of the patched QEMU
	Version string // first line that QEMU prints with -version
	Target  guest.Arch
	FBPPD   string
	FBPPCtl string
	Accel   vm.Accel
	init    string
	agent   string
	kernels map[guest.Series]*guest.Kernel
}

// commands is the import path of this module's programs.
const commands = "github.com/fbpp-project/fbpp/cmd/"

// Open builds or finds every part. It needs root. progress is called with a line
// before each slow step.
func Open(ctx context.Context, progress func(string)) (*Lab, error) {
	l, err := OpenHost(ctx, progress)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Root, "build")
	if l.agent, err = guest.BuildForGuest(ctx, commands+"fbpp-agent", dir); err != nil {
		return nil, err
	}
	if l.init, err = guest.BuildForGuest(ctx, guest.InitPackage, dir); err != nil {
		return nil, err
	}
	for _, s := range guest.AllSeries() {
		if l.kernels[s], err = guest.FetchKernel(ctx, s, progress); err != nil {
			return nil, err
		}
	}
	probe, err := l.Config(guest.Default(), 256, nil)
	if err != nil {
		return nil, err
	}
	if l.Accel, err = vm.DetectAccel(ctx, probe); err != nil {
		return nil, err
	}
	return l, nil
}

// OpenHost is Open without the parts that a Linux guest needs: it provides no kernels
// and no agent, and does not detect the accelerator.
func OpenHost(ctx context.Context, progress func(string)) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("guests need root: they read the kernel images and use /dev/kvm")
	}
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	l := &Lab{Root: root, kernels: make(map[guest.Series]*guest.Kernel)}
	if l.Target, err = guest.Target(); err != nil {
		return nil, err
	}
	if l.QEMU, l.Version, err = findQEMU(ctx, root); err != nil {
		return nil, err
	}
	progress("building fbppd, fbppctl and what runs in the guest")
	if l.FBPPD, err = l.build(ctx, commands+"fbppd"); err != nil {
		return nil, err
	}
	l.FBPPCtl, err = l.build(ctx, commands+"fbppctl")
	return l, err
}

// build builds a program of this module for this host and returns its path.
func (l *Lab) build(ctx context.Context, pkg string) (string, error) {
	return guest.BuildProgram(ctx, pkg, filepath.Join(l.Root, "build"))
}

// Kernel returns the kernel of a series, or nil if the Lab was opened by OpenHost.
func (l *Lab) Kernel(s guest.Series) *guest.Kernel { return l.kernels[s] }

// AgentPath is the agent's path in a guest.
const AgentPath = "/fbpp-agent"

// Config returns the configuration of a guest with the kernel of a series and so many
// MiB of memory. extra maps paths in the guest to further files on the host. The
// caller adds a backend.
func (l *Lab) Config(s guest.Series, memoryMiB int, extra map[string]string) (vm.Config, error) {
	k, ok := l.kernels[s]
	if !ok {
		return vm.Config{}, fmt.Errorf("boot a guest: kernel series %q is not one of %v",
			s, guest.AllSeries())
	}
	return l.ConfigFor(k, memoryMiB, extra)
}

// ConfigFor is Config for a kernel with modules of the caller's choice.
func (l *Lab) ConfigFor(
	k *guest.Kernel, memoryMiB int, extra map[string]string,
) (vm.Config, error) {
	files := guest.NewInitramfs(l.init, k)
	files[strings.TrimPrefix(AgentPath, "/")] = l.agent
	for path, source := range extra {
		files[strings.TrimPrefix(path, "/")] = source
	}
	archive, err := files.WriteTo(filepath.Join(l.Root, "build", "guest"))
	if err != nil {
		return vm.Config{}, err
	}
	return vm.Config{
		QEMU:      l.QEMU,
		Target:    l.Target,
		Accel:     l.Accel,
		Kernel:    k,
		Initramfs: archive,
		MemoryMiB: memoryMiB,
	}, nil
}

// findRoot returns the folder of this module: the nearest one above the working
// directory that has a go.mod.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the checkout: run this inside of it")
		}
		dir = up
	}
}
