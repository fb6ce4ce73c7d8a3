// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
)

// files makes files on the host and returns them as an initramfs.
func files(t *testing.T, content map[string]string) Initramfs {
	t.Helper()
	dir, i := t.TempDir(), Initramfs{}
	for name, text := range content {
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		i[name] = path
	}
	return i
}

func TestArchiveHasFoldersBeforeTheirFiles(t *testing.T) {
	archive, err := files(t, map[string]string{"init": "program", "a/b/c": "deep"}).Archive()
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range records {
		names = append(names, r.Name)
	}
	for _, want := range []string{"init", "a", "a/b", "a/b/c", "dev/console"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %q", want, names)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("not in order: %q", names)
	}
}

func TestArchiveOfEqualFilesIsEqual(t *testing.T) {
	content := map[string]string{"init": "program", "modules/x": "1", "modules/y": "2"}
	first, err := files(t, content).Archive()
	if err != nil {
		t.Fatal(err)
	}
	other := files(t, content)
	for _, path := range other {
		if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	second, err := other.Archive()
	if err != nil || !bytes.Equal(first, second) {
		t.Fatalf("archives differ (%v)", err)
	}
}

func TestWriteToNamesTheArchiveByItsContent(t *testing.T) {
	dir := t.TempDir()
	one, err := files(t, map[string]string{"init": "1"}).WriteTo(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := files(t, map[string]string{"init": "1"}).WriteTo(dir)
	if err != nil || again != one {
		t.Fatalf("got %q, %v, want %q", again, err, one)
	}
	if two, err := files(t, map[string]string{"init": "2"}).WriteTo(dir); err != nil || two == one {
		t.Fatalf("got %q, %v", two, err)
	}
	if _, err := (Initramfs{"init": "/does/not/exist"}).WriteTo(dir); err == nil {
		t.Fatal("a file that does not exist was archived")
	}
}

func TestMakeOnceShowsNothingHalfDone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "result")
	if err := makeOnce(path, func(dir string) error { return errors.New("no") }); err == nil {
		t.Fatal("the error was lost")
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a failed attempt left something")
	}
	var filled atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := makeOnce(path, func(dir string) error {
				filled.Add(1)
				return os.WriteFile(filepath.Join(dir, "file"), []byte("whole"), 0o644)
			})
			if err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(filepath.Join(path, "file")); err != nil || string(got) != "whole" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	all.Wait()
	before := filled.Load()
	err := makeOnce(path, func(string) error { filled.Add(1); return nil })
	if err != nil || filled.Load() != before {
		t.Fatalf("what is there was made again (%v)", err)
	}
}
