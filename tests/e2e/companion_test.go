// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Another backend of the VM takes part in postcopy: the library's example of a disk, which
// the guest writes and verifies all the while. The backend reads and writes guest memory
// that has yet to arrive, or that was skipped. QEMU migrates no vhost-user-rng.
func TestAnotherBackendTakesPartInPostcopy(t *testing.T) {
	m := bootWithDisk(t, nil)
	for _, hybrid := range []bool{false, true} {
		m.setDevice("hybrid", hybrid)
		m.parameter("max-postcopy-bandwidth", hybridBandwidth)
		figures := m.migrateByPostcopy(hybrid)
		if figures.RAM.Requests == 0 {
			t.Error("no page was requested: nothing ran before its memory arrived")
		}
		m.awaitDisk()
		m.awaitDriver()
	}
	m.endWork()
}

// work is the name of what uses the disk.
const work = "work"

// bootWithDisk boots a guest that writes and verifies a disk, which another backend serves, until
// [machine.endWork]. The memory is as in [setup].
func bootWithDisk(t *testing.T, memory []string) *machine {
	t.Helper()
	progress := func(line string) { fmt.Fprintln(os.Stderr, "e2e:", line) }
	packages, err := guest.FetchPackages(t.Context(), guest.Linux6_12, progress,
		"coreutils", "mount", "util-linux", "e2fsprogs", "fio") // those of tests/stock
	if err != nil {
		t.Fatal(err)
	}
	programs, err := packages.Programs("fio", "cat")
	if err != nil {
		t.Fatal(err)
	}
	s := setup{introspect: true, memoryMiB: withDiskMiB, memory: memory,
		modules: []string{"virtio_blk"}, files: make(map[string]string),
		timeout: time.Duration(rounds(1, 5)) * hangTimeout}
	for path, source := range programs {
		s.files["/"+path] = source
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	blk := newCompanion(t, "vhost-user-blk", "--blk-file="+disk)
	s.eachSide = func(c *vm.Config) { blk.join(c, "blk") }
	m := boot(t, s)
	if _, err := m.vm.Fill(m.ctx, 160); err != nil {
		t.Fatal(err)
	}
	err = m.vm.Spawn(m.ctx, work, "/bin/fio", "--name=work", "--filename=/dev/vda",
		"--ioengine=libaio", "--thread", "--direct=1", "--rw=randwrite", "--bsrange=4k-64k",
		"--iodepth=8", "--size=16m", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=32",
		"--loops=1000000")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// withDiskMiB is the memory of such a guest.
const withDiskMiB = 448

// awaitDisk waits until the guest has used its disk.
func (m *machine) awaitDisk() {
	m.t.Helper()
	for before := m.diskStatistics(); m.diskStatistics() == before; {
		time.Sleep(10 * time.Millisecond)
	}
}

// diskStatistics returns the guest's counts of the disk's requests.
func (m *machine) diskStatistics() string {
	m.t.Helper()
	out, err := m.vm.Run(m.ctx, "/bin/cat", "/sys/block/vda/stat")
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// endWork ends fio, and checks that it found all that it wrote.
func (m *machine) endWork() {
	m.t.Helper()
	order := ctl.Request{Op: ctl.OpSignal, Name: work, Signal: int(syscall.SIGINT)}
	if _, err := m.vm.Guest.Do(m.ctx, order); err != nil {
		m.t.Fatal(err)
	}
	r, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpWait, Name: work})
	if err != nil {
		m.t.Fatal(err)
	}
	// fio's exit status is that of the signal; errors are in its report.
	if !strings.Contains(r.Output, "terminating on signal 2") ||
		!strings.Contains(r.Output, "err= 0") {
		m.t.Errorf("fio ended with status %d: %s", r.Exit, r.Output)
	}
}

// companion is an example backend. Each QEMU gets a process of its own.
type companion struct {
	t       *testing.T
	program string
	args    []string
}

// newCompanion builds an example backend.
func newCompanion(t *testing.T, name string, args ...string) *companion {
	t.Helper()
	pkg := "github.com/fbpp-project/fbpp/vhostuser/examples/" + name
	program, err := guest.BuildProgram(t.Context(), pkg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &companion{t: t, program: program, args: args}
}

// join starts a process, which ends with the test, and gives its device to a QEMU.
func (o *companion) join(c *vm.Config, kind string) {
	o.t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-be-") // short, for a socket's name
	if err != nil {
		o.t.Fatal(err)
	}
	socket := filepath.Join(dir, "sock")
	var said bytes.Buffer
	cmd := exec.Command(o.program, append([]string{"--socket-path=" + socket}, o.args...)...)
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if o.t.Failed() {
			o.t.Logf("%s said:\n%s", kind, said.String())
		}
		os.RemoveAll(dir)
	})
	for {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if o.t.Context().Err() != nil {
			o.t.Fatalf("%s does not listen", kind)
		}
		time.Sleep(time.Millisecond)
	}
	c.Options = append(c.Options[:len(c.Options):len(c.Options)],
		"-chardev", "socket,id="+kind+",path="+socket)
	c.Devices = append(c.Devices[:len(c.Devices):len(c.Devices)],
		fmt.Sprintf("vhost-user-%s-pci,id=%s0,chardev=%s", kind, kind, kind))
}
