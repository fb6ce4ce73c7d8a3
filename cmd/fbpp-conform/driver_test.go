// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

func TestDriverCommandLine(t *testing.T) {
	path := "--socket-path=" + filepath.Join(t.TempDir(), "device.sock")
	for name, args := range map[string][]string{
		"no socket":               {},
		"a pause without resume":  {path, "--pause=true"},
		"a resume without pause":  {path, "--resume=true"},
		"a patience of 0":         {path, "--patience=0s"},
		"a negative time":         {path, "--hold=-1s"},
		"a time without a unit":   {path, "--quiet=300"},
		"a path that is too long": {"--socket-path=/" + strings.Repeat("x", 107)},
		"an unknown feature":      {path, "--offer=packed,teleport"},
		"a spare argument":        {path, "surplus"},
		"an unknown rule":         {path, "--rule=FBPP-NONE-*"},
		"an option of backend":    {path, "--device=fbpp"},
	} {
		t.Run(name, func(t *testing.T) {
			status, err := run(t.Context(), append([]string{"driver"}, args...), &bytes.Buffer{})
			if err == nil || status != report.ExitError {
				t.Errorf("status %d, error %v", status, err)
			}
		})
	}
}

// Without a driver the suite ends with an error and gives no verdicts.
func TestDriverThatDoesNotCome(t *testing.T) {
	var out bytes.Buffer
	args := []string{
		"driver", "--no-progress", "--wait=20ms", "--rule=FBPP-REP-*",
		"--socket-path=" + filepath.Join(t.TempDir(), "device.sock"),
	}
	status, err := run(t.Context(), args, &out)
	if status != report.ExitError || err == nil || !strings.Contains(err.Error(), "no driver") {
		t.Errorf("status %d, error %v", status, err)
	}
	if !strings.Contains(out.String(), "FBPP-REP-1") || strings.Contains(out.String(), "FBPP-INIT-1") {
		t.Errorf("output:\n%s", out.String())
	}
}

func TestShellCommands(t *testing.T) {
	if shell("") != nil {
		t.Error("an empty command gives a function")
	}
	if err := shell("test $((1 + 1)) = 2")(t.Context()); err != nil {
		t.Error(err)
	}
	if err := shell("exit 3")(t.Context()); err == nil || !strings.Contains(err.Error(), "exit 3") {
		t.Errorf("error %v", err)
	}
	// The end of ctx ends a command that hangs, with all that it has started.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := shell("sleep 1000 & sleep 1000")(ctx)
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
