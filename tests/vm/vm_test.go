// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/qmp"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
)

func TestArgsOfBothEndsDifferOnlyInIncoming(t *testing.T) {
	c := Config{Accel: TCG, Kernel: &guest.Kernel{Image: "/k"}, Initramfs: "/i", MemoryMiB: 256}
	source, destination := c.args("/d", false), c.args("/d", true)
	if !slices.Equal(destination[:len(source)], source) {
		t.Fatalf("source %q\ndestination %q", source, destination)
	}
	if extra := destination[len(source):]; !slices.Equal(extra, []string{"-incoming", "defer"}) {
		t.Fatalf("the destination has %q more", extra)
	}
}

func TestArgsOfTheDevice(t *testing.T) {
	c := Config{Accel: KVM, Kernel: &guest.Kernel{}, MemoryMiB: 256}
	if line := commandLine("q", c.args("/d", false)); strings.Contains(line, "fbpp") {
		t.Fatalf("a guest without a backend has the device: %s", line)
	}
	c.Backend, c.Device = "/s", map[string]string{"x-b": "2", "hints": "off"}
	line := commandLine("q", c.args("/d", false))
	for _, want := range []string{
		"id=fbpp,path=/s,reconnect-ms=200",
		"-device vhost-user-fbpp-pci,id=fbpp0,chardev=fbpp,hints=off,x-b=2",
		"-cpu host",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
}

func TestArgsOfMemory(t *testing.T) {
	c := Config{Kernel: &guest.Kernel{}, MemoryMiB: 256}
	line := commandLine("q", c.args("/d", false))
	want := "-object memory-backend-memfd,id=ram,size=256M,share=on -machine memory-backend=ram"
	if !strings.Contains(line, want) {
		t.Errorf("%q is not in %s", want, line)
	}
	c.Memory = []string{"memory-backend-memfd,id=a,size=1M", "memory-backend-memfd,id=b,size=1M"}
	line = commandLine("q", c.args("/d", false))
	if strings.Contains(line, "memory-backend=ram") || !strings.Contains(line, "id=b") {
		t.Errorf("backends of two nodes: %s", line)
	}
}

func TestArgsOfAGuestThatIsNoLinux(t *testing.T) {
	c := Config{
		Accel: KVM, AccelWith: "dirty-ring-size=4096", CPU: "qemu64",
		Firmware: "/rom", MemoryMiB: 64,
	}
	line := commandLine("q", c.args("/d", false))
	for _, want := range []string{"-accel kvm,dirty-ring-size=4096 ", "-cpu qemu64 ", "-bios /rom "} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
	if strings.Contains(line, "-kernel") {
		t.Errorf("a kernel is in %s", line)
	}
}

func TestArgsOfAGuestForARM64(t *testing.T) {
	c := Config{Target: guest.AArch64, Accel: TCG, Kernel: &guest.Kernel{}, MemoryMiB: 256}
	line := commandLine("q", c.args("/d", false))
	for _, want := range []string{"-machine virt,", "-cpu max,", "console=ttyAMA0 "} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
}

func TestAGuestDoesNotCheckItsTimer(t *testing.T) {
	for target, want := range map[guest.Arch]bool{"": true, guest.X86_64: true, guest.AArch64: false} {
		c := Config{Target: target, Accel: TCG, Kernel: &guest.Kernel{}, MemoryMiB: 256}
		line := commandLine("q", c.args("/d", false))
		if got := strings.Contains(line, "no_timer_check"); got != want {
			t.Errorf("for %q: %s", target, line)
		}
	}
}

func TestCommandLineQuotes(t *testing.T) {
	if got := commandLine("p", []string{"a", "b c", "it's $x"}); got != `p a 'b c' 'it'\''s $x'` {
		t.Fatal(got)
	}
}

func TestFloor(t *testing.T) {
	var m Migration
	m.RAM.Total = 10 * 4096
	m.RAM.Normal, m.RAM.Duplicate = 5, 2 // one page was sent twice
	m.RAM.Transferred = 5*4104 + 2*9 + 100
	got, want := m.Floor(4), Floor{UsedPages: 6, ZeroPages: 2, DeviceState: 100}
	if got != want || got.Bytes() != 4*4104+2*9+100 {
		t.Fatalf("got %+v, %d bytes", got, got.Bytes())
	}
}

// fakeQEMU answers QMP commands by a table, with an event before each answer.
func fakeQEMU(conn net.Conn, answers map[string]string) {
	fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": []}}`)
	scan := bufio.NewScanner(conn)
	for scan.Scan() {
		for command, answer := range answers {
			if strings.Contains(scan.Text(), `"`+command+`"`) {
				fmt.Fprintf(conn, "{\"event\": \"STOP\", \"data\": {}}\n%s\n", answer)
			}
		}
	}
}

func TestMonitor(t *testing.T) {
	here, there := net.Pipe()
	go fakeQEMU(there, map[string]string{
		"qmp_capabilities": `{"return": {}}`,
		"query-migrate": `{"return": {"status": "completed", "ram": {"transferred": 7}, ` +
			`"free-page-hints": {"status": "ok", "skipped": 3}}}`,
		"qom-set": `{"error": {"class": "GenericError", "desc": "no such property"}}`,
	})
	m, err := qmp.New(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	v := &VM{monitor: m}
	figures, err := v.QueryMigrate(t.Context())
	if err != nil || !figures.Ended() || figures.RAM.Transferred != 7 ||
		figures.HintStatus() != "ok" || figures.Hints.Skipped != 3 {
		t.Fatalf("got %+v, %v", figures, err)
	}
	var said *qmp.Error
	if err := v.SetDevice(t.Context(), "x", 1); !errors.As(err, &said) || said.Command != "qom-set" {
		t.Fatalf("got %v, want QEMU's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := v.Execute(ctx, "never-answered", nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want a cancelled command", err)
	}
	if err := v.Execute(t.Context(), "query-migrate", nil, nil); err == nil {
		t.Fatal("a monitor that was cut off answered")
	}
}

func TestProcessEnds(t *testing.T) {
	p, err := startProcess("shell", "/bin/sh", []string{"-c", "echo hello; exec sleep 600"})
	if err != nil {
		t.Fatal(err)
	}
	greeted := func() bool { return p.said.String() == "hello\n" }
	if err := p.await(t.Context(), "its greeting", greeted); err != nil {
		t.Fatal(err)
	}
	if p.ended() {
		t.Fatal("it ended by itself")
	}
	p.kill()
	if err := p.wait(t.Context()); err == nil || !p.ended() {
		t.Fatalf("got %v, want the status of a killed process", err)
	}
	p.signal(syscall.SIGTERM) // does nothing
	if err := p.await(t.Context(), "nothing", func() bool { return false }); err == nil {
		t.Fatal("a dead process was waited for")
	}
	if _, err := startProcess("none", "/does/not/exist", nil); err == nil {
		t.Fatal("a program that does not exist was started")
	}
}

func TestStartOfABrokenQEMUSaysWhy(t *testing.T) {
	c := Config{QEMU: "/bin/false", Accel: TCG, Kernel: &guest.Kernel{}, MemoryMiB: 1}
	_, err := Start(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "QEMU ended") ||
		!strings.Contains(err.Error(), "reproduce with: /bin/false") {
		t.Fatalf("got %v", err)
	}
}

func TestBootTellsTheGuestsDeathFromACrashOfQEMU(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		guest  bool
	}{
		"the guest died": {"exit 0", true},
		"QEMU crashed":   {"kill -SEGV $$", false},
		"QEMU gave up":   {"exit 1", false},
		"TCG gave up":    {"echo 'iotlb_to_section: Assertion failed' >&2; exit 1", true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := startProcess("QEMU", "/bin/sh", []string{"-c", tc.script})
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := net.Pipe()
			theirs.Close()
			v := &VM{
				Config:  Config{QEMU: "/bin/sh", Accel: TCG, Kernel: &guest.Kernel{}},
				Guest:   ctl.NewClient(ours),
				process: p, dir: t.TempDir(),
			}
			_, err = v.Boot(t.Context())
			if err == nil || errors.Is(err, ctl.ErrClosed) != tc.guest {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestRetryBoot(t *testing.T) {
	died := fmt.Errorf("boot: %w", ctl.ErrClosed)
	for name, tc := range map[string]struct {
		accel  Accel
		err    error
		deaths int // before it succeeds
		calls  int
	}{
		"at once":                             {TCG, died, 0, 1},
		"after two deaths under emulation":    {TCG, died, 2, 3},
		"after two that hung":                 {TCG, fmt.Errorf("boot: %w", ErrHung), 2, 3},
		"not for ever":                        {TCG, died, 9, 3},
		"not under KVM":                       {KVM, died, 9, 1},
		"not for another reason than a death": {TCG, errors.New("no kernel"), 9, 1},
	} {
		t.Run(name, func(t *testing.T) {
			calls, lost := 0, 0
			err := RetryBoot(tc.accel, func(error) { lost++ }, func() error {
				calls++
				if calls <= tc.deaths {
					return tc.err
				}
				return nil
			})
			if calls != tc.calls || lost != calls-1 || (err == nil) != (calls > tc.deaths) {
				t.Fatalf("%d calls, %d deaths told, error %v", calls, lost, err)
			}
		})
	}
}
