// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

// A wrong command line has exit status 2, a guest that cannot report has 1.
func TestCommandLineRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"an argument":                 {"now"},
		"an unknown flag":             {"--frobnicate"},
		"an unknown level":            {"--log-level=loud"},
		"both --check and --once":     {"--check", "--once"},
		"--json alone":                {"--json"},
		"a device that is not needed": {"--check", "--device=0000:00:05.0"},
		"a path for a device":         {"--device=../../../etc"},
		"a device without function":   {"--device=0000:00:05"},
		"a device number too high":    {"--device=00:20.0"},
		"a name for a device":         {"--device=virtio3"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), args, io.Discard)
			if !errors.As(err, new(cli.UsageError)) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v, want one line about the command line", err)
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	for device, want := range map[string]string{
		"0000:00:05.0":     "0000:00:05.0",
		"00:1f.7":          "0000:00:1f.7",
		"10000:e1:00.0":    "10000:e1:00.0",
		"0001:00:05.0":     "0001:00:05.0",
		"12345678:00:05.0": "12345678:00:05.0",
	} {
		o, err := parse(t.Context(), []string{"--device=" + device, "--log-level=debug"}, io.Discard)
		if err != nil || o.device != want {
			t.Errorf("%s is taken for %q, %v; want %q", device, o.device, err, want)
		}
	}
	var help strings.Builder
	if _, err := parse(t.Context(), []string{"--help"}, &help); !errors.Is(err, cli.ErrDone) {
		t.Fatalf("error %v, want ErrDone", err)
	}
	for _, want := range []string{"Exit status:", "--check", "--device address"} {
		if !strings.Contains(help.String(), want) {
			t.Errorf("--help does not speak of %q", want)
		}
	}
}
