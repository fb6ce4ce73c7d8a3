// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/preflight"
)

func TestCheckSaysWhy(t *testing.T) {
	found := &preflight.Result{
		Guest: agent.Guest{
			Hello: protocol.Hello{
				Release: "Linux 6.12", RAMBytes: 8 << 30, Features: protocol.FeaturePagePoison,
			},
			Status: protocol.StatusContentMatters,
		},
		Err: errors.New("page_poison is on"),
	}
	var text bytes.Buffer
	if err := printCheck(&text, found, false); !errors.Is(err, found.Err) {
		t.Fatalf("error %v of a guest that must not report", err)
	}
	for _, want := range []string{
		"content-matters", "page_poison is on", "Linux 6.12", "8192 MiB", "page-poison",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in %q", want, text.String())
		}
	}
	text.Reset()
	if err := printCheck(&text, found, true); !errors.Is(err, found.Err) {
		t.Fatalf("error %v of a guest that must not report", err)
	}
	var got checkReport
	if err := json.Unmarshal(text.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := checkReport{
		Status: "content-matters", Reason: "page_poison is on",
		Release: "Linux 6.12", RAMBytes: 8 << 30, Features: "page-poison",
	}
	if got != want {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if err := printSnapshot(io.Discard, found, false); !errors.Is(err, found.Err) {
		t.Fatalf("error %v of a guest that must not report", err)
	}
}

// A policy that is broken leaves the built-in walk alone. Without that walk it is an error.
func TestBrokenPolicyStopsOnlyWhatDependsOnIt(t *testing.T) {
	for name, c := range map[string]struct {
		policy, accepted string
		takes, bare      bool // bare: an error with --no-built-in
	}{
		"a good one":                 {`{"key_dir": "/keys"}`, `{}`, true, false},
		"one that takes nothing":     {`{}`, `{}`, false, true},
		"one that is broken":         {`{`, `{}`, false, true},
		"a broken list of versions":  {`{"key_dir": "/keys"}`, `{`, false, true},
		"a list that is not the own": {`{"key_dir": "/keys"}`, `[]`, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := options{policy: filepath.Join(dir, "p"), accepted: filepath.Join(dir, "a")}
			for path, text := range map[string]string{o.policy: c.policy, o.accepted: c.accepted} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			judge, err := chooseJudge(&o, zap.NewNop())
			if err != nil || (judge != nil) != c.takes {
				t.Errorf("judge %v, error %v", judge, err)
			}
			o.noBuiltIn = true
			if judge, err = chooseJudge(&o, zap.NewNop()); (err != nil) != c.bare {
				t.Errorf("with --no-built-in: judge %v, error %v", judge, err)
			}
		})
	}
}

func TestGuestWithoutTheDeviceLoadsNothing(t *testing.T) {
	// The machine that runs the tests is taken to have no such device. If the agent
	// loaded a program first, the error would be another one, or nil.
	for _, args := range [][]string{nil, {"--device=ff:1f.7"}} {
		err := run(t.Context(), args, io.Discard)
		usage := errors.As(err, new(cli.UsageError))
		if err == nil || !strings.Contains(err.Error(), "PCI") || usage {
			t.Errorf("%q: error %v", args, err)
		}
	}
}
