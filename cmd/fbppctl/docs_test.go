// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

// command matches fbppctl in a block of code, up to a comment, and in a line.
var command = regexp.MustCompile("(?m)^    fbppctl ([^#\n]*)|`fbppctl ([^`\n]*)`")

// The commands that documents name exist, with these options.
func TestCommandsOfTheDocumentsExist(t *testing.T) {
	t.Setenv("FBPP_CONTROL_PATH", "/nonexistent/control.sock")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // or watch would not end
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir()) // some commands write files
	n := 0
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(string(text), -1) {
			args := strings.Fields(m[1] + m[2])
			if args[0] == "COMMAND" {
				continue // no whole command
			}
			n++
			if err := run(ctx, args, io.Discard); errors.As(err, new(cli.UsageError)) {
				t.Errorf("%s: fbppctl %s: %v", file, strings.Join(args, " "), err)
			}
		}
	}
	if n < 10 {
		t.Errorf("the documents have %d commands: are they written otherwise now?", n)
	}
}
