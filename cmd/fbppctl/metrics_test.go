// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
)

// mustCollect returns the text of what e collects, after promtool's own lint of it.
func mustCollect(t *testing.T, e exporter) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(e)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Fatalf("lint: %v, %v", problems, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		for _, m := range f.Metric {
			text.WriteString(f.GetName() + " " + m.String() + "\n")
		}
	}
	return strings.ReplaceAll(text.String(), "  ", " ")
}

func TestOneExporterForAllMachines(t *testing.T) {
	dir, ends := mustHost(t, "vm1", "vm2")
	mustStallAt(t, host(dir).socket("vm3"))
	e := exporter{host(dir), 2 * time.Second}
	text := mustCollect(t, e)
	for _, want := range []string{
		`fbpp_up label:{name:"vm" value:"vm1"} gauge:{value:1}`,
		`fbpp_up label:{name:"vm" value:"vm2"} gauge:{value:1}`,
		`fbpp_up label:{name:"vm" value:"vm3"} gauge:{value:0}`,
		`fbpp_enabled label:{name:"vm" value:"vm2"} gauge:{value:1}`,
		`fbpp_requests_total label:{name:"status" value:"ok"} label:{name:"vm" value:"vm1"} counter:`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, `fbpp_enabled label:{name:"vm" value:"vm3"}`) {
		t.Error("a machine that did not answer has a status")
	}
	ends[1]()
	if text := mustCollect(t, e); strings.Contains(text, "vm2") {
		t.Errorf("a machine that has gone is there:\n%s", text)
	}
}

// An fbppd that a guest took over cannot break the metrics of others.
func TestAHostileFBPPDHarmsNoOther(t *testing.T) {
	many := fullStatus()
	many.Migration.SkippedBytes = 7
	for range 100 {
		many.Last.Phases = append(many.Last.Phases, many.Last.Phases[0])
		name := strings.Repeat("x", len(many.Requests))
		many.Requests[name] = 1
		many.Last.Phases = append(many.Last.Phases, device.Phase{Name: name})
	}
	full, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]string{
		"too many labels": string(full), "no JSON": "fbpp_up 1\n", "no end": `{"x":"`,
		"wrong types": `{"requests":7}`, "no UTF-8": `{"requests":{"` + "\xff\xfe" + `":1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := mustHost(t, "vm1")
			path := host(dir).socket("evil")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.WriteString(w, answer)
				for name == "no end" && err == nil {
					_, err = io.WriteString(w, strings.Repeat("x", 1<<20))
				}
			})}
			go func() { _ = srv.Serve(l) }()
			defer srv.Close()
			text := mustCollect(t, exporter{host(dir), 5 * time.Second})
			if !strings.Contains(text, `fbpp_up label:{name:"vm" value:"vm1"} gauge:{value:1}`) {
				t.Errorf("vm1 is missing:\n%s", text)
			}
			// Names that nobody knows make no series: they could be new each time.
			if n := strings.Count(text, `"evil"`); n > 40 || strings.Contains(text, "xxx") {
				t.Errorf("%d metrics of one machine:\n%s", n, text)
			}
		})
	}
}

func TestMetricsAreServed(t *testing.T) {
	dir, _ := mustHost(t, "vm1")
	at := filepath.Join(t.TempDir(), "http")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	args := []string{"--run-dir=" + dir, "metrics", "--listen=unix:" + at}
	go func() { ended <- run(ctx, args, io.Discard) }()
	scrape(t, at)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// scrape waits for the exporter at a socket, and expects metrics of vm1.
func scrape(t *testing.T, at string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", at)
		}, DisableKeepAlives: true,
	}}
	for {
		resp, err := client.Get("http://exporter/metrics")
		if err != nil {
			time.Sleep(10 * time.Millisecond) // the timeout of go test bounds the loop
			continue
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(text), `fbpp_up{vm="vm1"} 1`) {
			t.Errorf("%v:\n%s", err, text)
		}
		return
	}
}

// TestMain plays fbppctl where a test starts its own program as a process.
func TestMain(m *testing.M) {
	if os.Getenv("FBPPCTL_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// systemd hands over its socket as descriptor 3.
func TestMetricsBySocketActivation(t *testing.T) {
	dir, _ := mustHost(t, "vm1")
	at := filepath.Join(t.TempDir(), "http")
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	script := []string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0], "--run-dir=" + dir, "metrics"}
	cmd := exec.CommandContext(t.Context(), "sh", script...)
	cmd.Env = append(os.Environ(), "FBPPCTL_TEST_MAIN=1", "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scrape(t, at)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestMetricsNeedASocket(t *testing.T) {
	for _, args := range [][]string{
		{"metrics"}, {"metrics", "--vm=a", "--listen=:0"}, {"metrics", "--listen=:0", "x"},
	} {
		if err := run(t.Context(), args, io.Discard); !errors.As(err, new(cli.UsageError)) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if err := run(t.Context(), []string{"metrics", "--listen=nonsense"}, io.Discard); err == nil {
		t.Error("it listens at nonsense")
	}
}
