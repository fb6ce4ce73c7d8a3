// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

func TestWrongCommandLines(t *testing.T) {
	for _, args := range [][]string{{"spare"}, {"--folder=x"}, {"--dir"}} {
		if err := run(t.Context(), args, io.Discard); !errors.As(err, new(cli.UsageError)) {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"--dir=" + file}, io.Discard); err == nil {
		t.Error("counterexamples go to a file")
	}
}
