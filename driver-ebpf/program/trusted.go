// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnsafe says that another user than root, or than the agent's, could change a file.
var ErrUnsafe = errors.New("others than root may write it")

// openTrusted opens a file or a folder that only root, or the user of this process, may change.
// What it has looked at is what it returns.
func openTrusted(path string) (*os.File, error) {
	// A FIFO must not stop the agent.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var info unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &info); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	owned := info.Uid == 0 || int(info.Uid) == os.Geteuid()
	if !owned || info.Mode&0o022 != 0 {
		f.Close()
		return nil, &fs.PathError{Op: "trust", Path: path, Err: ErrUnsafe}
	}
	if kind := info.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		f.Close()
		return nil, &fs.PathError{Op: "trust", Path: path, Err: errors.New("it is no file")}
	}
	return f, nil
}

// readTrusted reads a file of at most so many bytes that only its owner may change.
func readTrusted(path string, most int64) ([]byte, error) {
	f, err := openTrusted(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("read %s: it has more than %d bytes", path, most)
	}
	return text, err
}

// listTrusted returns the paths in a folder whose names end so, in their order.
func listTrusted(dir, suffix string, most int) ([]string, error) {
	f, err := openTrusted(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasSuffix(name, suffix)
	})
	if len(names) > most {
		return nil, fmt.Errorf("%s has more than %d files *%s", dir, most, suffix)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return names, nil
}
