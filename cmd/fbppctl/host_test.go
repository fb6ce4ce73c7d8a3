// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/observer"
)

// mustHost makes a folder like /run/fbpp with idle devices of these names. The
// functions that it returns end them.
func mustHost(t *testing.T, names ...string) (string, []func()) {
	t.Helper()
	dir := t.TempDir()
	var ends []func()
	for _, name := range names {
		ends = append(ends, mustServeAt(t, host(dir).socket(name)))
	}
	return dir, ends
}

// mustStallAt makes the socket of an fbppd that is stopped.
func mustStallAt(t *testing.T, path string) {
	t.Helper()
	l := mustListenAt(t, path)
	t.Cleanup(func() { l.Close() })
}

func TestTheMachinesOfAHostAreListed(t *testing.T) {
	dir, _ := mustHost(t, "vm1", "vm2")
	if err := os.MkdirAll(filepath.Join(dir, "no-socket", "control.sock"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"list", "--run-dir", dir}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "vm1  enabled  none") ||
		!strings.HasPrefix(lines[2], "vm2  enabled  none") {
		t.Errorf("got\n%s", out.String())
	}
	out.Reset()
	err := run(t.Context(), []string{"list", "--run-dir", filepath.Join(dir, "none")}, &out)
	if err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("a host without machines: %v, %q", err, out.String())
	}
}

// One fbppd that is stopped costs no more than the timeout, and the others are there.
func TestAStoppedFBPPDIsListed(t *testing.T) {
	dir, _ := mustHost(t, "vm1")
	mustStallAt(t, host(dir).socket("vm2"))
	var out strings.Builder
	err := run(t.Context(), []string{"list", "--run-dir", dir, "--timeout=2s"}, &out)
	if err == nil || !strings.Contains(err.Error(), "1 of 2 did not answer") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), "vm1  enabled") ||
		!strings.Contains(out.String(), "fbppd does not answer within 2s") {
		t.Errorf("got\n%s", out.String())
	}
}

func TestAMachineIsNamed(t *testing.T) {
	dir, _ := mustHost(t, "vm1")
	args := []string{"--run-dir=" + dir, "--vm", "vm1", "disable"}
	if err := run(t.Context(), args, io.Discard); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"status", "--run-dir", dir, "--vm=vm1"}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "hints      disabled") {
		t.Errorf("got\n%s", out.String())
	}
}

func TestReadiness(t *testing.T) {
	status := func(change func(*device.Status)) device.Status {
		s := device.Status{
			Enabled: true, Connected: true, DriverState: "ready", Sources: []string{"driver"},
		}
		change(&s)
		return s
	}
	for _, tc := range []struct {
		name   string
		status device.Status
		want   string // "" where it is ready
	}{
		{"a driver that is ready", status(func(*device.Status) {}), ""},
		{"no driver", status(func(s *device.Status) { s.DriverState = "none" }),
			"the guest's driver: none"},
		{"a driver that refuses", status(func(s *device.Status) {
			s.DriverState, s.Driver = "refuses", &driver.Identity{Reason: "page_poison is on"}
		}), "the guest's driver refuses: page_poison is on"},
		{"no driver, but a known kernel", status(func(s *device.Status) {
			s.DriverState, s.Sources = "none", []string{"driver", "introspect"}
			s.Kernel = &observer.Status{Release: "6.12"}
		}), ""},
		{"neither", status(func(s *device.Status) {
			s.DriverState, s.Sources = "none", []string{"driver", "introspect"}
			s.Kernel = &observer.Status{Why: "no Linux"}
		}), "the guest's driver: none; the guest's kernel: no Linux"},
		{"nobody to ask", status(func(s *device.Status) { s.Sources = nil }),
			"nobody is asked (--source=none)"},
		{"switched off, without QEMU", status(func(s *device.Status) {
			s.Enabled, s.Connected = false, false
		}), "hints are disabled at fbppd; QEMU is not connected"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			err := new(target).showReady(&out, readinessOf(tc.status))
			if tc.want == "" {
				if err != nil || out.String() != "ready\n" {
					t.Errorf("got %v and %q", err, out.String())
				}
				return
			}
			with := new(cli.StatusError)
			if !errors.As(err, with) || with.Status != exitNotReady || err.Error() != tc.want {
				t.Errorf("got %v, want %q with status 3", err, tc.want)
			}
		})
	}
}
