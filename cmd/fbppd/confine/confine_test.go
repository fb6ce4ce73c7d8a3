// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const childEnv = "FBPP_TEST_CONFINE"

// TestMain runs child instead of the tests in a process that mustStart has started.
func TestMain(m *testing.M) {
	if o := os.Getenv(childEnv); o != "" {
		child(o)
		return
	}
	os.Exit(m.Run())
}

// attempts are the attempts of a confined process, in this order. An unconfined
// process ends at "execute a file", where it becomes another program.
func attempts(dir string) []attempt {
	in := func(name string) string { return filepath.Join(dir, "in", name) }
	out := filepath.Join(dir, "out", "file")
	socket := func(domain int) error {
		_, err := unix.Socket(domain, unix.SOCK_STREAM, 0)
		return err
	}
	return []attempt{
		{"remove a file where it may", true, func() error { return os.Remove(in("socket")) }},
		{"remove a file elsewhere", false, func() error { return os.Remove(out) }},
		{"open a file", false, func() error { return closed(os.Open("/etc/passwd")) }},
		{"open a file where it may remove some", false,
			func() error { return closed(os.Open(in("file"))) }},
		{"create a file where it may remove some", false,
			func() error { return closed(os.Create(in("new"))) }},
		{"list a folder", false, func() error { _, err := os.ReadDir("/"); return err }},
		{"execute a file", false, func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
		{"make a process", false, func() error {
			pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			if pid == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			return nil
		}},
		{"make an internet socket", false, func() error { return socket(unix.AF_INET) }},
		{"make a unix socket", false, func() error { return socket(unix.AF_UNIX) }},
		{"trace its parent", false, func() error { return unix.PtraceAttach(unix.Getppid()) }},
		{"signal its parent", false, func() error { return unix.Kill(unix.Getppid(), 0) }},
		{"map memory to execute it", false, func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
			return err
		}},
		{"load a bpf program", false, func() error {
			if _, _, errno := unix.Syscall(unix.SYS_BPF, 5, 0, 0); errno != 0 {
				return errno
			}
			return nil
		}},
		{"map a memfd", true, func() error {
			fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			if err != nil {
				return err
			}
			if err := unix.Ftruncate(fd, 4096); err != nil {
				return err
			}
			_, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		}},
		{"start threads and collect garbage", true, func() error {
			done := make(chan struct{})
			for range 20 {
				go func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					runtime.GC()
					done <- struct{}{}
				}()
			}
			for range 20 {
				<-done
			}
			return nil
		}},
	}
}

type attempt struct {
	name string
	may  bool
	do   func() error
}

func closed(f *os.File, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}

// child confines the process and prints a line for each attempt. It ends when its
// standard input is closed.
func child(options string) {
	var o Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		panic(err)
	}
	report, err := Process(o)
	fmt.Println("process:", err, report.Missing)
	for _, a := range attempts(filepath.Dir(o.Removable[0])) {
		fmt.Printf("%s: %v\n", a.name, a.do() == nil)
	}
	fmt.Println("end")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// mustStart runs child in another process, with a new folder. It returns the
// child's lines by name, without the line "end". The child lives until the test
// ends.
func mustStart(t *testing.T, o Options) (lines map[string]string, cmd *exec.Cmd) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []string{"in/socket", "in/file", "out/file"} {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.Removable = []string{filepath.Join(dir, "in")}
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(options))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	lines = make(map[string]string)
	for s := bufio.NewScanner(stdout); s.Scan() && s.Text() != "end"; {
		name, rest, _ := strings.Cut(s.Text(), ": ")
		lines[name] = rest
	}
	return lines, cmd
}

// needKernel skips the test when the report says that the kernel lacks a part.
func needKernel(t *testing.T, lines map[string]string) {
	t.Helper()
	if got := lines["process"]; got != "<nil> []" {
		t.Skipf("this kernel does not confine a process as far as is tested here: %s", got)
	}
}

func TestAConfinedProcessHasWhatItNeedsAndNoMore(t *testing.T) {
	lines, cmd := mustStart(t, Options{Sandbox: SandboxLandlock, Seccomp: SeccompErrno})
	needKernel(t, lines)
	for _, a := range attempts("") {
		if want := fmt.Sprint(a.may); lines[a.name] != want {
			t.Errorf("%s: %q, want %q", a.name, lines[a.name], want)
		}
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v, %v; want several", tasks, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) {
			continue // that thread has ended
		} else if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapPrm:\t0000000000000000\n",
			"CapEff:\t0000000000000000\n", "CapInh:\t0000000000000000\n",
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q", task, want)
			}
		}
	}
}

func TestLandlockAloneForbidsFiles(t *testing.T) {
	lines, _ := mustStart(t, Options{Sandbox: SandboxLandlock})
	needKernel(t, lines)
	for _, name := range []string{
		"open a file", "open a file where it may remove some", "create a file where it may remove some",
		"list a folder", "execute a file", "remove a file elsewhere",
	} {
		if lines[name] != "false" {
			t.Errorf("%s: %q, want that it fails", name, lines[name])
		}
	}
	if name := "remove a file where it may"; lines[name] != "true" {
		t.Errorf("%s: %q", name, lines[name])
	}
}

func TestKillEndsTheProcessAtAForbiddenCall(t *testing.T) {
	lines, cmd := mustStart(t, Options{Seccomp: SeccompKill})
	needKernel(t, lines)
	if _, ok := lines["make an internet socket"]; ok || lines["open a file"] != "false" {
		t.Errorf("it did not end at the execution of a file: %v", lines)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "bad system call") {
		t.Errorf("it ended with %v, want by SIGSYS", err)
	}
}

func TestSandboxNoneForbidsNothing(t *testing.T) {
	lines, _ := mustStart(t, Options{Sandbox: SandboxNone, Seccomp: SeccompNone})
	for _, name := range []string{"open a file", "list a folder"} {
		if lines[name] != "true" {
			t.Errorf("%s: %q, want that it works", name, lines[name])
		}
	}
	if got, ok := lines["make a process"]; ok {
		t.Errorf("it could not execute a file, and went on to make a process: %q", got)
	}
}

func TestUnknownOptionsAreRefused(t *testing.T) {
	for _, o := range []Options{{Sandbox: "chroot"}, {Seccomp: "maybe"}} {
		if _, err := Process(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
