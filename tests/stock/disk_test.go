// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
)

const (
	disk     = "/dev/vda"
	mount    = "/mnt"
	diskSize = 128 << 20
)

// newDisk makes a file for a backend to serve.
func newDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, diskSize); err != nil {
		t.Fatal(err)
	}
	return path
}

// kinds are the kinds of guests whose disk is tested. Each disk has a queue for every
// processor.
var kinds = []kind{
	{"split rings with Linux 6.1", guest.Linux6_1, ",num-queues=2,packed=off"},
	{"packed rings with Linux 6.12", guest.Linux6_12, ",num-queues=2,packed=on"},
}

type kind struct {
	name       string
	series     guest.Series
	properties string // of the device
}

// takesUpAgain makes QEMU reconnect after the backend is gone.
const takesUpAgain = ",reconnect=1"

// makeFileSystem makes a file system on the disk and mounts it.
func (m *machine) makeFileSystem() {
	m.t.Helper()
	m.run("/bin/mke2fs", "-q", "-t", "ext4", disk)
	m.run("/bin/mkdir", "-p", mount)
	m.mount()
}

func (m *machine) mount() {
	m.t.Helper()
	m.run("/bin/mount", "-t", "ext4", disk, mount)
}

// checkFileSystem unmounts the file system and has it checked.
func (m *machine) checkFileSystem() {
	m.t.Helper()
	m.run("/bin/umount", mount)
	if said := m.run("/bin/e2fsck", "-f", "-n", disk); !strings.Contains(said, "Pass 5") {
		m.t.Errorf("the file system was not checked: %s", said)
	}
}

// fio returns the command line of a job over a file on the disk. Every block that
// it writes carries a checksum.
func fio(file string, more ...string) []string {
	return append([]string{
		"/bin/fio", "--name=" + file, "--filename=" + mount + "/" + file,
		"--thread", "--ioengine=libaio", "--direct=1",
		"--rw=randrw", "--bsrange=4k-64k", "--iodepth=8", "--size=8m",
		"--verify=crc32c", "--verify_fatal=1", "--randseed=1",
	}, more...)
}

// endless makes a job write and verify until it is told to end.
var endless = []string{"--rw=randwrite", "--verify_backlog=32", "--loops=1000000"}

// startWork has the guest write to the disk and verify without end.
func (m *machine) startWork() {
	m.t.Helper()
	m.spawn("work", fio("work", endless...)...)
	m.awaitWork()
}

// awaitWork waits until the guest has read and written once more.
func (m *machine) awaitWork() {
	m.t.Helper()
	reads, writes := m.completed()
	for {
		r, w := m.completed()
		if r > reads && w > writes {
			return
		}
		if m.ctx.Err() != nil {
			m.t.Fatalf("the guest's requests do not complete: %d reads, %d writes", r, w)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// completed returns how many requests the guest's driver has seen answered.
func (m *machine) completed() (reads, writes int) {
	m.t.Helper()
	stat := strings.Fields(m.run("/bin/cat", "/sys/block/vda/stat"))
	if len(stat) < 5 {
		m.t.Fatalf("statistics of the disk: %q", stat)
	}
	reads, err := strconv.Atoi(stat[0])
	if err == nil {
		writes, err = strconv.Atoi(stat[4])
	}
	if err != nil {
		m.t.Fatalf("statistics of the disk: %v", err)
	}
	return reads, writes
}

// endWork ends what startWork began, and checks that all went well.
func (m *machine) endWork() {
	m.t.Helper()
	m.order(ctl.Request{Op: ctl.OpSignal, Name: "work", Signal: int(syscall.SIGINT)})
	r := m.order(ctl.Request{Op: ctl.OpWait, Name: "work"})
	// fio's exit status is that of the signal; errors are in its report.
	if !strings.Contains(r.Output, "terminating on signal 2") ||
		!strings.Contains(r.Output, "err= 0") {
		m.t.Errorf("fio ended with status %d: %s", r.Exit, r.Output)
	}
}

func TestGuestUsesTheBackendsDisk(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { testDisk(t, k) })
	}
}

func testDisk(t *testing.T, k kind) {
	blk := startBackend(t, parts.blk, "--blk-file="+newDisk(t))
	disk := device{name: "blk", socket: blk.socket, more: k.properties, chardev: takesUpAgain}
	m := boot(t, withDevices(k.series, disk))
	m.makeFileSystem()

	t.Run("it verifies what it wrote", func(t *testing.T) {
		m.in(t)
		m.run(fio("verified")...)
	})
	t.Run("it is stopped and continued", func(t *testing.T) {
		m.in(t)
		m.startWork()
		for range 3 {
			m.execute("stop")
			m.execute("cont")
			m.awaitWork()
		}
		m.endWork()
	})
	t.Run("the backend is killed and started again", func(t *testing.T) {
		m.in(t)
		m.startWork()
		for range 3 {
			blk.end(syscall.SIGKILL)
			blk.start()
			m.awaitWork()
		}
		m.endWork()
	})
	t.Run("its file system is sound", func(t *testing.T) {
		m.in(t)
		m.checkFileSystem()
		if n := strings.Count(m.run("/bin/dmesg"), "I/O error"); n > 0 {
			t.Errorf("the guest saw %d I/O errors", n)
		}
	})
	t.Run("the backend ends when it is told to", func(t *testing.T) {
		m.in(t)
		m.execute("stop")
		blk.end(syscall.SIGTERM)
		if !blk.cmd.ProcessState.Success() {
			t.Errorf("it ended with %v", blk.cmd.ProcessState)
		}
	})
}
