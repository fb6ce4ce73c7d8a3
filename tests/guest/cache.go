// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CacheDir returns the project's cache: $FBPP_CACHE, or fbpp in the user's
// cache folder. It exists when the error is nil.
func CacheDir() (string, error) {
	dir := os.Getenv("FBPP_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder: %w", err)
		}
		dir = filepath.Join(base, "fbpp")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder: %w", err)
	}
	return dir, nil
}

// makeOnce makes the folder at path if there is none. It calls fill with a scratch
// folder beside path, and then renames that to path. So a reader never sees a partial
// folder. If two processes do so at once, one of the two folders is kept.
func makeOnce(path string, fill func(dir string) error) (err error) {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // apt reads it as another user
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	if err := os.Rename(dir, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
