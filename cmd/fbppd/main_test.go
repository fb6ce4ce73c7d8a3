// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/cmd/fbppd/confine"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

func TestWrongCommandLines(t *testing.T) {
	long := "/" + strings.Repeat("x", 107)
	for name, args := range map[string][]string{
		"neither a path nor a descriptor": {},
		"both of them":                    {"--socket-path=/x", "--fd=3"},
		"a stray argument":                {"--socket-path=/x", "y"},
		"an unknown flag":                 {"--sockets=/x"},
		"a budget without a unit":         {"--socket-path=/x", "--hold-budget=5"},
		"a budget of a nanosecond":        {"--socket-path=/x", "--hold-budget=1ns"},
		"a budget of a minute":            {"--socket-path=/x", "--hold-budget=1m"},
		"no entries":                      {"--socket-path=/x", "--hold-entries=0"},
		"four billion entries":            {"--socket-path=/x", "--hold-entries=4294967297"},
		"an abstract socket":              {"--socket-path=@x"},
		"an abstract control socket":      {"--socket-path=/x", "--control-path=@x"},
		"an abstract agent socket":        {"--socket-path=/x", "--agent-socket=@x"},
		"a path that is too long":         {"--socket-path=" + long},
		"a long path of the other socket": {"--socket-path=/x", "--control-path=" + long},
		"an unknown source":               {"--socket-path=/x", "--source=driver"},
		"an unknown cache policy":         {"--socket-path=/x", "--cache=keep"},
		"a bound of a byte":               {"--socket-path=/x", "--cache-drop-max=1B"},
		"a bound without an end":          {"--socket-path=/x", "--cache-drop-max=2TiB"},
		"a bound that is no size":         {"--socket-path=/x", "--cache-drop-max=much"},
		"an hour to drop cache":           {"--socket-path=/x", "--cache-drop-time=1h"},
		"an unknown kind of heat":         {"--socket-path=/x", "--hot=lru"},
		"an hour to watch the guest":      {"--socket-path=/x", "--hot-time=1h"},
		"an unknown sandbox":              {"--socket-path=/x", "--sandbox=chroot"},
		"an unknown seccomp action":       {"--socket-path=/x", "--seccomp=maybe"},
		"an unknown log level":            {"--socket-path=/x", "--log-level=loud"},
		"an unknown log format":           {"--socket-path=/x", "--log-format=xml"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), args, &strings.Builder{}); !errors.As(err, new(cli.UsageError)) {
				t.Fatalf("got %v, want a usage error", err)
			}
		})
	}
}

func TestPrintCapabilitiesIgnoresOtherOptions(t *testing.T) {
	var out strings.Builder
	args := []string{"--no-such-option", "--print-capabilities", "--fd=99", "--socket-path=/x", "y"}
	if err := run(t.Context(), args, &out); !errors.Is(err, cli.ErrDone) {
		t.Fatal(err)
	}
	var printed struct{ Type string }
	if err := json.Unmarshal([]byte(out.String()), &printed); err != nil || printed.Type == "" {
		t.Fatalf("printed %q: %v", out.String(), err)
	}
}

// mustParse returns the options of a command line.
func mustParse(t *testing.T, args ...string) options {
	t.Helper()
	o, err := parse(t.Context(), args, &strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// unconfined stands for confine.Process: the tests' own process stays unconfined.
func unconfined(confine.Options) (confine.Report, error) { return confine.Report{}, nil }

// start runs serve until the test ends, and returns a channel with its result.
func start(t *testing.T, ctx context.Context, o options) <-chan error {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, o, zap.NewNop(), unconfined) }()
	return served
}

func TestServesUntilItIsToldToEnd(t *testing.T) {
	dir := t.TempDir()
	path, ctl := filepath.Join(dir, "vhost"), filepath.Join(dir, "ctl")
	agent := filepath.Join(dir, "agent")
	ctx, cancel := context.WithCancel(t.Context())
	o := mustParse(t, "--disabled",
		"--socket-path="+path, "--control-path="+ctl, "--agent-socket="+agent)
	served := start(t, ctx, o)

	client := control.NewClient(ctl)
	var s device.Status
	for {
		var err error
		if s, err = client.Status(t.Context()); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if s.Enabled {
		t.Error("--disabled has no effect")
	}
	fe, err := vhosttest.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer fe.Close()
	if err := fe.Realize(vhosttest.Options{}); err != nil {
		t.Fatal(err)
	}
	port, err := net.Dial("unix", agent)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	cancel()
	if err := <-served; err != nil {
		t.Fatalf("serve: %v, want a clean end", err)
	}
	for _, p := range []string{path, ctl, agent} {
		if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s after the end: %v, want it gone", p, err)
		}
	}
}

func TestAConnectedDescriptorIsServedOnce(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fe, err := vhosttest.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, err := conn.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd())) // serve takes it over
	if err != nil {
		t.Fatal(err)
	}
	o := mustParse(t, "--socket-path=unused")
	o.socketPath, o.fd = "", fd
	served := start(t, t.Context(), o)
	if err := fe.Realize(vhosttest.Options{}); err != nil {
		t.Fatal(err)
	}
	fe.Close()
	if err := <-served; err != nil {
		t.Fatalf("serve: %v, want a clean end with the connection", err)
	}
}
