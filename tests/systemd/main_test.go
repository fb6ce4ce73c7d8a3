// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// hangTimeout ends a test that hangs, and bootTimeout a guest that does not boot. They
// assert no speed.
const (
	hangTimeout = 40 * time.Minute
	bootTimeout = 8 * time.Minute
)

// memoryMiB is the size of the guest.
const memoryMiB = 1024

// rootPort is the PCIe root port that the fbpp device is behind.
const rootPort = "port0"

var (
	suites = flag.String("suites", "bookworm trixie", "the `releases` of Debian to boot")
	keep   = flag.String("keep", "", "a `folder` that keeps what is made, for the next time")
)

// machine is a booted Debian, with an fbppd beside its QEMU.
type machine struct {
	t       *testing.T
	ctx     context.Context
	parts   *lab.Lab
	config  vm.Config
	vm      *vm.VM
	backend *vm.Backend
}

// install makes a Debian with the packages of HEAD, which is not booted yet. With -keep it
// takes one of an earlier time, with the packages that it has.
func install(t *testing.T, suite string) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	t.Cleanup(cancel)
	progress := func(line string) { fmt.Fprintln(os.Stderr, "systemd:", line) }
	parts, err := lab.OpenHost(ctx, progress)
	if err != nil {
		t.Fatal(err)
	}
	made, disk := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	if *keep != "" {
		made = filepath.Join(*keep, suite)
	}
	do := func(words ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Dir = parts.Root
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", words, err, said)
		}
	}
	if _, err := os.Stat(filepath.Join(made, "disk")); err != nil {
		progress("making the packages, and a Debian " + suite)
		init, err := guest.BuildProgram(ctx, guest.InitPackage, made)
		if err != nil {
			t.Fatal(err)
		}
		do("./contrib/packaging/build.sh", filepath.Join(made, "packages"))
		do("./tests/systemd/image.sh", suite, init, made)
	}
	do("cp", "--sparse=always", filepath.Join(made, "disk"), disk)
	config := vm.Config{
		QEMU:      parts.QEMU,
		Kernel:    &guest.Kernel{Version: suite, Image: filepath.Join(made, "vmlinuz")},
		Initramfs: filepath.Join(made, "initrd"),
		MemoryMiB: memoryMiB,
		Append:    []string{"root=/dev/vda", "rw"},
		Device:    map[string]string{"hint-timeout": "20000"},
		Port:      rootPort,
		// Both ends of a migration have the disk open.
		Options: []string{"-drive", "if=none,id=root,format=raw,file.locking=off,file=" + disk},
		Devices: []string{"virtio-blk-pci,drive=root"},
	}
	if config.Accel, err = vm.DetectAccel(ctx, config); err != nil {
		t.Fatal(err)
	}
	return &machine{t: t, ctx: ctx, parts: parts, config: config}
}

// boot boots it, and returns when it takes orders.
func (m *machine) boot() {
	m.t.Helper()
	lost := func(err error) {
		m.t.Logf("the guest was lost while it booted, once more: %v", err)
		m.vm.Close()
	}
	m.backend = m.startBackend()
	m.config.Backend = m.backend.Socket
	err := vm.RetryBoot(m.config.Accel, lost, func() (err error) {
		if m.vm, err = vm.Start(m.ctx, m.config); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(m.ctx, bootTimeout, vm.ErrHung)
		defer cancel()
		_, err = m.vm.Boot(ctx)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		m.explain()
		m.vm.Close()
	})
}

// startBackend starts an fbppd that ends with the test.
func (m *machine) startBackend() *vm.Backend {
	m.t.Helper()
	b, err := vm.StartBackend(m.ctx, m.parts.FBPPD, "--cache=drop")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { b.Close() })
	return b
}

// run runs a program in the guest, and returns what it prints.
func (m *machine) run(words ...string) string {
	m.t.Helper()
	said, err := m.vm.Run(m.ctx, words...)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(said)
}

// shell is run for a script.
func (m *machine) shell(script string) string {
	m.t.Helper()
	return m.run("/bin/bash", "-ec", script)
}

// await waits until done says so.
func (m *machine) await(what string, done func() bool) {
	m.t.Helper()
	for !done() {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-m.ctx.Done():
			m.t.Fatalf("wait for %s: %v", what, context.Cause(m.ctx))
		}
	}
}

// explain logs, if the test has failed, what the guest's journal says.
func (m *machine) explain() {
	if !m.t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	said, err := m.vm.Run(ctx, "/usr/bin/journalctl", "-b", "--no-pager", "-o", "cat", "-n", "150",
		"-p", "info")
	m.t.Logf("the journal: %s\n%v\n%s\nfbppd said: %s", said, err,
		m.vm.Diagnosis(), m.backend.Log())
}
