// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/tests/introspect/pageview"
)

// settle is how long a guest is left alone before its memory is read, because pages change
// for a while after the guest was busy.
const settle = 2 * time.Second

// view is a guest's view of its pages, and the host's view just before.
type view struct {
	files  map[string][]byte
	before map[uint64]pages.Page
}

// mustPauseWithView takes the host's view of the guest's pages, then the guest's own, and
// pauses the guest.
func (s *subject) mustPauseWithView(t *testing.T, k *introspect.Kernel) *view {
	t.Helper()
	time.Sleep(settle)
	s.mustTell(t, "view") // a first time, because taking a view changes pages
	time.Sleep(settle)
	_, before := mustSee(t, k)
	if got := s.mustTell(t, "view"); got != "taken" {
		t.Fatalf("the guest took no view: %s", got)
	}
	s.mustQMP(t, "stop", nil, nil)
	files, err := s.collect()
	if err != nil {
		t.Fatal(err)
	}
	s.keep(t, files)
	return &view{files: files, before: before}
}

// collect finds the files of the view in the guest's memory.
func (s *subject) collect() (map[string][]byte, error) {
	c := pageview.NewCollector(s.token)
	page := make([]byte, pageview.PageSize)
	for _, file := range s.ram {
		err := eachData(file, func(start, end int64) error {
			for at := start; at < end; at += pageview.PageSize {
				if _, err := file.ReadAt(page, at); err != nil {
					return err
				}
				c.Add(page)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for the view: %w", err)
		}
	}
	files := make(map[string][]byte)
	for _, name := range []string{
		"kpageflags", "kpageflags2", "kpagecount", "zoneinfo", "buddyinfo", "lru_gen",
	} {
		content, err := c.File(name)
		if err != nil {
			return nil, err
		}
		files[name] = content
	}
	return files, nil
}

// eachData calls f for each range of the file that is allocated.
func eachData(file *os.File, f func(start, end int64) error) error {
	for at := int64(0); ; {
		start, err := file.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		if at, err = file.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := f(start, at); err != nil {
			return err
		}
	}
}

// keep writes a copy of the guest's memory and its view, if -keep asks for it.
func (s *subject) keep(t *testing.T, files map[string][]byte) {
	t.Helper()
	if *keep == "" {
		return
	}
	dir := filepath.Join(*keep, filepath.Base(t.Name()))
	err := os.MkdirAll(dir, 0o755)
	for name, content := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	for node, file := range s.ram {
		err = errors.Join(err, copySparse(filepath.Join(dir, backingName(node)), file))
	}
	if err != nil {
		t.Fatalf("keep the guest: %v", err)
	}
}

func copySparse(path string, from *os.File) error {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	defer to.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	return eachData(from, func(start, end int64) error {
		_, err := io.Copy(
			io.NewOffsetWriter(to, start),
			io.NewSectionReader(from, start, end-start),
		)
		return err
	})
}
