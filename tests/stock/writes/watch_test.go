// SPDX-License-Identifier: Apache-2.0

package writes

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheProcessesOwnWritesCount(t *testing.T) {
	program := filepath.Join(t.TempDir(), "writer")
	must(t, Inject(t.Context(), "testdata/writer", program))

	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	must(t, err)
	memory := os.NewFile(uintptr(fd), "memory")
	defer memory.Close()
	must(t, memory.Truncate(16*pageSize))
	ours, err := unix.Mmap(fd, 0, 16*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(ours)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))

	theirs, pages, err := os.Pipe()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), program)
	cmd.ExtraFiles = []*os.File{memory, theirs}
	orders, err := cmd.StdinPipe()
	must(t, err)
	answers, err := cmd.StdoutPipe()
	must(t, err)
	done, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	theirs.Close()
	reports := bufio.NewReader(done)
	write := func(page int) {
		t.Helper()
		_, err := fmt.Fprintln(pages, page)
		must(t, err)
		if said, err := reports.ReadString('\n'); err != nil || said != "done\n" {
			t.Fatalf("the writer said %q, %v", said, err)
		}
	}

	p := &Process{PID: cmd.Process.Pid, Orders: orders, Answers: bufio.NewReader(answers)}
	write(1)
	if err := p.Begin(); err != nil {
		if strings.Contains(err.Error(), "userfaultfd") || strings.Contains(err.Error(), "ioctl") {
			t.Skipf("the kernel has no asynchronous write protection, Linux 6.7: %v", err)
		}
		t.Fatal(err)
	}
	ours[2*pageSize] = 1
	for _, page := range []int{7, 3, 7} {
		write(page)
	}
	got, err := p.Written(st.Ino)
	must(t, err)
	if !slices.Equal(got, []uint64{3 * pageSize, 7 * pageSize}) {
		t.Errorf("pages %#x were written, want 3 and 7", got)
	}
	must(t, p.Begin())
	if got, err := p.Written(st.Ino); err != nil || len(got) > 0 {
		t.Errorf("%#x were written since, %v", got, err)
	}
	pages.Close()
	must(t, cmd.Wait())
}
