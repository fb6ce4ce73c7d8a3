// SPDX-License-Identifier: Apache-2.0

package writes

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// injected is a source file to add to the program. It imports package watched.
const injected = `package main

import _ "github.com/fbpp-project/fbpp/tests/stock/writes/watched"
`

// Inject builds the program in the folder src into the file out, so that it can be watched.
// It leaves the sources unchanged: an overlay adds one more file for the go command.
func Inject(ctx context.Context, src, out string) error {
	dir, err := os.MkdirTemp("", "fbpp-inject-")
	if err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	defer os.RemoveAll(dir)
	src, err = filepath.Abs(src)
	if err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	file, overlay := filepath.Join(dir, "injected.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(src, "injected.go"): file},
	})
	if err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	for path, content := range map[string][]byte{file: []byte(injected), overlay: replace} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("inject: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-overlay", overlay, "-o", out, ".")
	cmd.Dir = src
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s to be watched: %w\n%s", src, err, said)
	}
	return nil
}
