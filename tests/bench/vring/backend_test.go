// SPDX-License-Identifier: Apache-2.0

package vring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// echoSocket is an environment variable. It makes this test binary serve the Go library's
// echo device at a socket.
const echoSocket = "FBPP_BENCH_ECHO"

func TestMain(m *testing.M) {
	if path := os.Getenv(echoSocket); path != "" {
		if err := serveEcho(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveEcho serves frontends until it is told to end.
func serveEcho(path string) error {
	dev := &vhostuser.Device{
		Features:  1<<wire.FeatureRingPacked | 1<<wire.FeatureInOrder,
		NumQueues: 1,
		Kick:      echo,
	}
	if s := os.Getenv("FBPP_BENCH_SPIN"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			return err
		}
		dev.SpinTime = d
	}
	stop, err := profile(os.Getenv("FBPP_BENCH_PROFILE"))
	if err != nil {
		return err
	}
	defer stop()
	l, err := vhostuser.Listen(path)
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := vhostuser.NewServer(dev, nil)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer cancel()
	err = s.Serve(ctx, l)
	if !errors.Is(err, context.Canceled) && !strings.Contains(fmt.Sprint(err), "signal") {
		return err
	}
	return nil
}

// echo does what echo.c does, in batches.
func echo(q *vhostuser.Queue) {
	var chains [32]*vhostuser.Chain
	var done [len(chains)]vhostuser.Completion
	for {
		n, err := q.PopBatch(chains[:])
		if err != nil {
			return
		}
		if n == 0 {
			break
		}
		for i, c := range chains[:n] {
			done[i] = vhostuser.Completion{Chain: c, Written: copyChain(c)}
		}
		if q.PushBatch(done[:n]) != nil {
			return
		}
	}
	_ = q.Notify()
}

func copyChain(c *vhostuser.Chain) uint32 {
	in, out := c.Readable(), c.Writable()
	if len(in) == 0 || len(out) == 0 {
		return 0
	}
	n, _ := c.WriteAt(in[0].Bytes[:min(len(in[0].Bytes), len(out[0].Bytes))], 0)
	return uint32(n)
}

// backend is an echo device to be started.
type backend struct {
	name     string
	features uint64 // that change how the ring works
	// command returns what serves a socket, or errMissing.
	command func(b *testing.B, socket string) (*exec.Cmd, error)
}

// errMissing says that this host lacks something that a backend needs.
var errMissing = errors.New("not measured")

// start runs the backend until the benchmark ends, and returns its socket and
// its process.
func (d backend) start(b *testing.B) (string, *os.Process, error) {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "socket")
	cmd, err := d.command(b, socket)
	if err != nil {
		return "", nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	})
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			return socket, cmd.Process, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "", nil, fmt.Errorf("%s does not listen", d.name)
}

// cpuTime returns how much processor time a process has used.
func cpuTime(p *os.Process) (time.Duration, error) {
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers.h.
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.Pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("processor time: %w", os.NewSyscallError("clock_gettime", err))
	}
	return time.Duration(ts.Nano()), nil
}

func goBackend(_ *testing.B, socket string) (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), echoSocket+"="+socket)
	return cmd, nil
}

// libvhostUser compiles the C device.
func libvhostUser(b *testing.B, socket string) (*exec.Cmd, error) {
	source, err := libraryFolder()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(b.TempDir(), "echo")
	cc := exec.Command("cc", "-O2", "-D_GNU_SOURCE", "-std=gnu11", "-I", source, "-o", program,
		"libvhost-user/echo.c", filepath.Join(source, "libvhost-user.c"), "-lpthread")
	switch out, err := cc.CombinedOutput(); {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%w: no C compiler for libvhost-user", errMissing)
	case err != nil:
		return nil, fmt.Errorf("compile libvhost-user: %w\n%s", err, out)
	}
	return exec.Command(program, socket), nil
}

// libraryFolder returns where libvhost-user's source is.
func libraryFolder() (string, error) {
	if dir := os.Getenv("FBPP_LIBVHOST_USER"); dir != "" {
		return dir, nil
	}
	out, err := exec.Command("../../../qemu-patches/qemu.sh", "--quiet", "source").Output()
	if err != nil {
		return "", fmt.Errorf("%w: no QEMU source for libvhost-user: %w", errMissing, err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "subprojects/libvhost-user"), nil
}
