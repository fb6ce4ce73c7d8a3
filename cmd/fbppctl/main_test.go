// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// mustServe serves an idle device until the test ends.
func mustServe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ctl")
	mustServeAt(t, path)
	return path
}

// mustListenAt makes a control socket and its folder.
func mustListenAt(t *testing.T, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := unixsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// mustServeAt serves an idle device until the test ends, or end is called.
func mustServeAt(t *testing.T, path string) (end func()) {
	t.Helper()
	l := mustListenAt(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- control.Serve(ctx, l, device.New(device.Options{}), zap.NewNop()) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

func TestCommands(t *testing.T) {
	path := mustServe(t)
	for _, tc := range []struct{ command, want string }{
		{"status", "hints      enabled\n"},
		{"disable", "hints      disabled\n"},
		{"status", "hints      disabled\n"},
		{"enable", "hints      enabled\n"},
		{"cache", "cache      send\n"},
		{"cache last", "cache      last\n"},
		{"cache", "cache      last\n"},
	} {
		var out strings.Builder
		args := append([]string{"--control-path", path}, strings.Fields(tc.command)...)
		if err := run(t.Context(), args, &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), tc.want) {
			t.Errorf("%s printed %q, want %q in it", tc.command, out.String(), tc.want)
		}
	}
}

func TestJSONIsTheStatus(t *testing.T) {
	var out strings.Builder
	args := []string{"--control-path", mustServe(t), "--json", "status"}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatal(err)
	}
	var s device.Status
	err := json.Unmarshal([]byte(out.String()), &s)
	if err != nil || !s.Enabled || s.DriverState != "none" {
		t.Fatalf("printed %q: %v", out.String(), err)
	}
}

// full is an output that fails, as a closed pipe does.
type full struct{ strings.Builder }

var errFull = errors.New("full")

func (f *full) Write(p []byte) (int, error) {
	f.Builder.Write(p)
	return 0, errFull
}

func TestWatchEndsWithItsOutput(t *testing.T) {
	var out full
	err := run(t.Context(), []string{"--control-path", mustServe(t), "watch"}, &out)
	if !errors.Is(err, errFull) || !strings.Contains(out.String(), "enabled") {
		t.Fatalf("got %v after %q", err, out.String())
	}
}

// mustStall returns a socket as of an fbppd that is stopped: the kernel accepts a
// few connections, but no answer comes.
func mustStall(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ctl")
	mustStallAt(t, path)
	return path
}

func TestNoCommandWaitsForever(t *testing.T) {
	path := mustStall(t)
	for _, command := range []string{"status", "enable", "disable", "watch"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			args := []string{"--control-path", path, "--timeout=50ms", command}
			err := run(t.Context(), args, &strings.Builder{})
			if !errors.Is(err, errSilent) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v, want errSilent with %s", err, path)
			}
		})
	}
}

// late is an output that fails at the second status of a watch, each of which is a line of JSON.
type late struct{ states int }

func (l *late) Write(p []byte) (int, error) {
	if l.states++; l.states == 2 {
		return 0, errFull
	}
	return len(p), nil
}

func TestAWatchOutlastsTheTimeout(t *testing.T) {
	path, timeout := mustServe(t), 2*time.Second
	time.AfterFunc(2*timeout, func() {
		_ = run(t.Context(), []string{"--control-path", path, "disable"}, &strings.Builder{})
	})
	args := []string{"--control-path", path, "--timeout", timeout.String(), "--json", "watch"}
	err := run(t.Context(), args, new(late))
	if !errors.Is(err, errFull) {
		t.Fatalf("got %v, want the second state", err)
	}
}

// lines is an output that hands on what is written to it.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestAWatchSurvivesARestartOfFBPPD(t *testing.T) {
	dir, ends := mustHost(t, "vm1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, ended := make(lines, 16), make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--run-dir=" + dir, "--vm=vm1", "--json", "watch"}, out)
	}()
	see := func() (s seen) {
		t.Helper()
		if err := json.Unmarshal([]byte(<-out), &s); err != nil || s.Time.IsZero() {
			t.Fatalf("saw %+v: %v", s, err)
		}
		return s
	}
	if s := see(); s.Status == nil || s.Error != "" {
		t.Fatalf("saw %+v first", s)
	}
	ends[0]()
	if s := see(); s.Status != nil || s.Error == "" {
		t.Fatalf("saw %+v after the end", s)
	}
	mustServeAt(t, host(dir).socket("vm1"))
	if s := see(); s.Status == nil || s.Error != "" {
		t.Fatalf("saw %+v after the restart", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestWrongCommandLines(t *testing.T) {
	t.Setenv("FBPP_CONTROL_PATH", "")
	for name, args := range map[string][]string{
		"no command":           {"--control-path=/x"},
		"an unknown command":   {"--control-path=/x", "destroy"},
		"an unknown policy":    {"--control-path=/x", "cache", "lost"},
		"two policies":         {"--control-path=/x", "cache", "send", "last"},
		"two commands":         {"--control-path=/x", "status", "enable"},
		"no socket":            {"status"},
		"an unknown flag":      {"--color", "status"},
		"an abstract socket":   {"--control-path=@abs", "status"},
		"a path too long":      {"--control-path=/" + strings.Repeat("x", 107), "status"},
		"a timeout of 0":       {"--control-path=/x", "--timeout=0s", "status"},
		"a machine and a path": {"--vm=a", "--control-path=/x", "status"},
		"a machine above":      {"--vm=..", "status"},
		"a machine below":      {"--vm=a/b", "status"},
		"a list of one":        {"--vm=a", "list"},
		"no unit":              {"--control-path=/x", "--timeout=5", "status"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), args, &strings.Builder{}); !errors.As(err, new(cli.UsageError)) {
				t.Fatalf("got %v, want a usage error", err)
			}
		})
	}
}

func TestPrintShowsWhatAnOperatorNeeds(t *testing.T) {
	ended := &device.Migration{
		Result: "completed", Hints: "ok", SkippedBytes: 2 << 20, TransferredBytes: 9 << 20, TotalMS: 12,
	}
	with := func(change func(m *device.Migration)) device.Status {
		m := *ended
		change(&m)
		return device.Status{Migration: &m}
	}
	for _, tc := range []struct {
		name   string
		status device.Status
		want   []string
	}{
		{"a driver that refuses, and an open request", device.Status{
			Asking: true, DriverState: "refuses",
			Driver: &driver.Identity{Release: "Linux 6.1", Reason: "page_poison is on"},
		}, []string{"page_poison is on", "Linux 6.1", "request    open"}},
		{"what was reported", device.Status{Last: &device.Exchange{
			Status: "ok", Records: 3, Ranges: 2, FreeBytes: 3 << 20, Truncated: true,
			Phases:  []device.Phase{{Name: "wakeup", Microseconds: 1}, {Name: "walk", Microseconds: 2}},
			Details: []source.Detail{{Name: "holds", Value: 6}},
		}}, []string{
			"reported   3.0 MiB in 2 ranges from 3 records, truncated",
			"wakeup 1 µs, walk 2 µs", "holds 6",
		}},
		{"what was skipped", device.Status{Migration: ended},
			[]string{"migration  completed", "skipped    2.0 MiB, 9.0 MiB sent in 12 ms"}},
		{"a migration that failed", with(func(m *device.Migration) { m.Result = "failed" }),
			[]string{"migration  failed", "skipped    nothing: the migration did not complete"}},
		{"a migration that made no request", with(func(m *device.Migration) { m.Hints = "incompatible" }),
			[]string{"migration  completed", "skipped    nothing: incompatible"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			if err := print(&out, tc.status); err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
		})
	}
}

func TestCensusIsPrinted(t *testing.T) {
	of := func(class pages.Class, n uint64) census.Class {
		return census.Class{Class: class, Counts: introspect.Counts{Pages: n, Dirty: n / 2}}
	}
	var out strings.Builder
	err := printCensus(&out, &census.Census{
		Release: "6.12.1", ContentMatters: true, FoundUS: 12_345, CountedUS: 6000,
		Classes: []census.Class{of(pages.Free, 1024)},
		Zones:   []census.Zone{{Node: 1, Name: "Normal", Classes: []census.Class{of(pages.File, 512)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"Linux 6.12.1", "relies on what is in its free pages", "1 Normal file 2.0 0.0 1.0 0.0",
		"all free 4.0 0.0 2.0 0.0", "found in 12 ms, and its pages counted in 6 ms",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestHistoryIsPrinted(t *testing.T) {
	var out strings.Builder
	if err := printHistory(&out, []device.Migration{
		{
			Ended: time.Unix(0, 0).UTC(), Result: "completed", Hints: "ok", SkippedBytes: 7 << 30,
			TransferredBytes: 200 << 20, TotalMS: 400, DowntimeMS: 30, Order: "used", Hybrid: "switched",
		},
		{Ended: time.Unix(60, 0).UTC(), Result: "failed", Hints: "incompatible"},
	}); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"1970-01-01T00:00:00Z completed ok 7168.0 MiB 200.0 MiB 400 ms 30 ms used switched",
		"1970-01-01T00:01:00Z failed incompatible 0.0 MiB 0.0 MiB 0 ms 0 ms - -",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, args := range [][]string{{"history"}, {"--json", "history"}} {
		err := run(t.Context(), append([]string{"--control-path", mustServe(t)}, args...), io.Discard)
		if err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestAnEstimateIsPrinted(t *testing.T) {
	var at links
	if err := at.Set("1,2.5"); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	c := &census.Census{
		MemoryBytes: 4 << 30, TouchedBytes: 1e9,
		Classes: []census.Class{{
			Class: pages.File, Counts: introspect.Counts{Pages: 97656, Clean: 73242, Cold: 73242},
		}},
	}
	if err := printEstimate(&out, c, c.Estimate(at...), at); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"4096.0 MiB of memory, of which the guest has touched 953.7 MiB",
		"policy MiB last MiB at 1 Gbit/s at 2.5 Gbit/s", "all 953.7 0.0 8.00 s 3.20 s",
		"skip-free 381.5 0.0 3.20 s 1.28 s", "cache-last 381.5 286.1 3.20 s 1.28 s",
		"cache-drop 95.4 0.0 0.80 s 0.32 s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, wrong := range []string{"", "x", "0", "-1", "1,,2", "NaN", "Inf"} {
		args := []string{"--control-path=/x", "--bandwidth=" + wrong, "estimate"}
		err := run(t.Context(), args, io.Discard)
		if !errors.As(err, new(cli.UsageError)) {
			t.Errorf("bandwidth %q: %v", wrong, err)
		}
	}
}

func TestACensusThatCannotBeTakenSaysWhy(t *testing.T) {
	err := run(t.Context(), []string{"--control-path", mustServe(t), "census"}, &strings.Builder{})
	if err == nil || !strings.Contains(err.Error(), "there is no guest memory") {
		t.Errorf("got %v", err)
	}
}
