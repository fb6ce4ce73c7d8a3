// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

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
