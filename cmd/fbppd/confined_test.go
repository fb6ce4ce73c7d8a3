// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// daemon is an fbppd process, built as users build it, with all of its sockets.
type daemon struct {
	cmd               *exec.Cmd
	vhost, ctl, agent string
	log               *bytes.Buffer // read it only after the process has ended
}

// mustBuild builds fbppd as make does.
func mustBuild(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "fbppd")
	cmd := exec.Command("go", "build", "-trimpath", "-o", exe, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return exe
}

// mustStart starts exe and waits until it listens.
func mustStart(t *testing.T, exe string, args ...string) *daemon {
	t.Helper()
	return mustStartIn(t, t.TempDir(), nil, exe, args...)
}

// mustStartIn is mustStart with the folder for the sockets and the attributes of
// the process.
func mustStartIn(
	t *testing.T, dir string, attr *syscall.SysProcAttr, exe string, args ...string,
) *daemon {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	d := &daemon{
		vhost: in("vhost"), ctl: in("ctl"), agent: in("agent"), log: new(bytes.Buffer),
	}
	args = append(args,
		"--socket-path="+d.vhost, "--control-path="+d.ctl, "--agent-socket="+d.agent)
	d.cmd = exec.Command(exe, args...)
	d.cmd.Stderr, d.cmd.SysProcAttr = d.log, attr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		if t.Failed() {
			t.Logf("fbppd's log:\n%s", d.log)
		}
	})
	for client, ctx := control.NewClient(d.ctl), t.Context(); ; time.Sleep(time.Millisecond) {
		if _, err := client.Status(ctx); err == nil {
			return d
		}
	}
}

// peak returns the largest resident memory that the process had so far, in bytes.
func (d *daemon) peak(t *testing.T) int64 {
	t.Helper()
	status := must(os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid)))(t)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in\n%s", status)
	}
	return must(strconv.ParseInt(string(m[1]), 10, 64))(t) << 10
}

func TestConfined(t *testing.T) {
	exe := mustBuild(t)
	t.Run("the kernel shows it in /proc", func(t *testing.T) {
		d := mustStart(t, exe)
		status := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid)))(t))
		for _, want := range []string{
			"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapEff:\t0000000000000000\n",
		} {
			if !strings.Contains(status, want) {
				t.Errorf("no %q in\n%s", want, status)
			}
		}
	})
	t.Run("it serves two QEMUs and ends cleanly", func(t *testing.T) {
		d := mustStart(t, exe, "--seccomp=kill")
		for range 2 {
			v := mustRun(t, d.vhost) // fbppd maps its memory while it is confined
			v.exchange()
			v.migrate()
			v.exchange()
			v.fe.Close()
		}
		if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := d.cmd.Wait(); err != nil {
			t.Fatalf("it ended with %v", err)
		}
		for _, path := range []string{d.vhost, d.ctl, d.agent} {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s after the end: %v, want it gone", path, err)
			}
		}
		log := d.log.String()
		if !strings.Contains(log, "confined") {
			t.Errorf("log:\n%s", log)
		}
		for line := range strings.Lines(log) {
			if strings.Contains(line, "not permitted") {
				t.Errorf("it tried something that it may not do: %s", line)
			}
		}
	})
	t.Run("its memory is bounded under a flood", func(t *testing.T) { testFlood(t, exe) })
	t.Run("it notifies systemd", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "notify")
		sd := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}))(t)
		defer sd.Close()
		t.Setenv("NOTIFY_SOCKET", path)
		d := mustStart(t, exe)
		told := func() string {
			p := make([]byte, 64)
			return string(p[:must(sd.Read(p))(t)])
		}
		if got := told(); got != "READY=1" {
			t.Errorf("it said %q", got)
		}
		if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if got := told(); got != "STOPPING=1" {
			t.Errorf("it said %q at its end", got)
		}
	})
}

// growth bounds, in bytes, the memory that a guest of guestSize and the clients of
// the sockets can make fbppd use. docs/operating.md promises it. It is on top of
// the memory of an idle fbppd and of the guest's own memory.
const growth = 32 << 20

// testFlood floods fbppd from the guest, its serial port and the control socket.
func testFlood(t *testing.T, exe string) {
	d := mustStart(t, exe)
	v := mustRun(t, d.vhost)
	v.exchange()
	before := d.peak(t)

	// Clients that send nothing, or a header that does not end.
	for i := range 1500 {
		conn := must(net.Dial("unix", d.ctl))(t)
		defer conn.Close()
		if i%2 == 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = fmt.Fprintf(conn, "GET /metrics HTTP/1.1\r\nX: %s", strings.Repeat("x", 15<<10))
		}
	}
	// A serial port that sends refusals and garbage without end.
	ctx, stop := context.WithCancel(t.Context())
	talked := make(chan int)
	go func() {
		n := 0
		defer func() { talked <- n }()
		refusal := bytes.Repeat(helloMessage(protocol.StatusLockdown, strings.Repeat("r", 79)), 64)
		for ctx.Err() == nil {
			conn, err := net.Dial("unix", d.agent)
			if err != nil {
				return
			}
			for i := 0; i < 10 && ctx.Err() == nil; i++ {
				_, _ = conn.Write(refusal)
				n++
			}
			_, _ = conn.Write(bytes.Repeat([]byte{0xff}, 4096))
			conn.Close()
		}
	}()
	all := vhosttest.Buffer{Addr: guestBase, Len: guestSize}
	for range 100 {
		// HELLOs, a message of eight times the guest's memory, and garbage.
		v.send(helloMessage(protocol.StatusOK, "again"))
		v.sendBuffers(all, all, all, all, all, all, all, all)
		v.send(bytes.Repeat([]byte{0x5a}, 4096))
		v.send(helloMessage(protocol.StatusOK, ""))
	}
	var pages []protocol.Record // no two of them touch
	for pfn := uint64(guestBase >> 12); pfn < (guestBase+guestSize)>>12; pfn += 2 {
		pages = append(pages, protocol.MakeRecord(pfn, 0))
	}
	stop()
	if n := <-talked; n == 0 {
		t.Error("fbppd accepted nothing from the serial port")
	}
	// fbppd handles one connection after the other. When it closes this one, it has
	// handled all before.
	port := must(net.Dial("unix", d.agent))(t)
	defer port.Close()
	must(port.Write(bytes.Repeat([]byte{0xff}, protocol.HeaderSize+protocol.HelloSize)))(t)
	_, _ = port.Read(make([]byte, 1))
	for range 20 {
		v.send(helloMessage(protocol.StatusOK, ""))
		v.send(report(v.open(), pages...))
		v.answer()
	}
	if grown := d.peak(t) - before; grown > growth {
		t.Errorf("fbppd grew by %d MiB, more than %d MiB", grown>>20, growth>>20)
	} else {
		t.Logf("fbppd had %d KiB, and grew by %d KiB", before>>10, grown>>10)
	}
	v.exchange()
}
