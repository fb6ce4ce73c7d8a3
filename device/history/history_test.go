// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mustOpen opens a history that can be written.
func mustOpen(t testing.TB, path string) *Log {
	t.Helper()
	l, err := Open(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// nth returns a migration that differs from others by n.
func nth(n int) Migration {
	return Migration{
		Ended: time.Unix(int64(n)+1, 0).UTC(), Result: "completed", Hints: "ok", SkippedBytes: uint64(n),
	}
}

// skipped returns the n of each migration that nth made.
func skipped(ms []Migration) []int {
	var numbers []int
	for _, m := range ms {
		numbers = append(numbers, int(m.SkippedBytes))
	}
	return numbers
}

func upTo(first, end int) []int {
	var numbers []int
	for n := first; n < end; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

func TestHistoryOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	const all = 5*Kept + 7
	for n := 0; n < all; {
		l := mustOpen(t, path)
		for range 31 { // migrations in each process
			if n < all {
				l.Add(nth(n))
				n++
			}
		}
		if got, want := skipped(l.Newest()), upTo(max(0, n-Kept), n); !slices.Equal(got, want) {
			t.Fatalf("kept %v, want %v", got, want)
		}
		mustClose(t, l)
		content, err := os.ReadFile(path)
		if err != nil || bytes.Count(content, []byte("\n")) > 2*Kept {
			t.Fatalf("%d lines, %v", bytes.Count(content, []byte("\n")), err)
		}
	}
	if got := mustOpen(t, path).Newest(); got[Kept-1] != nth(all-1) {
		t.Errorf("the newest is %+v", got[Kept-1])
	}
}

func TestUnreadableLinesAreSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	l := mustOpen(t, path)
	for n := range 3 {
		l.Add(nth(n))
	}
	mustClose(t, l)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content = append([]byte("nonsense\n\n{}\n"), content[:len(content)-5]...) // the last is cut off
	mustWrite(t, path, content)
	l = mustOpen(t, path)
	l.Add(nth(9))
	mustClose(t, l)
	if got := skipped(mustOpen(t, path).Newest()); !slices.Equal(got, []int{0, 1, 9}) {
		t.Errorf("kept %v", got)
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	contents := map[string][]byte{
		"large": bytes.Repeat([]byte("x"), maxFile+1),
		"notes": []byte("what somebody has written\nand wants to keep"),
	}
	dir := t.TempDir()
	paths := []string{"/dev/null", dir, "/nowhere/history"}
	for name, content := range contents {
		mustWrite(t, filepath.Join(dir, name), content)
		paths = append(paths, filepath.Join(dir, name))
	}
	for _, path := range paths {
		if l, err := Open(path, func(error) {}); err == nil {
			l.Close()
			t.Errorf("%s was taken", path)
		} else if !strings.Contains(err.Error(), "history") {
			t.Errorf("%s: %v", path, err)
		}
	}
	for name, content := range contents {
		if now, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s was changed: %d bytes, %v", name, len(now), err)
		}
	}
}

// A process may end before it has written the first line whole.
func TestAnIncompleteFirstLineIsIgnored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	mustWrite(t, path, []byte(`{"ended":"2026-01-`))
	l := mustOpen(t, path)
	l.Add(nth(1))
	mustClose(t, l)
	if got := skipped(mustOpen(t, path).Newest()); !slices.Equal(got, []int{1}) {
		t.Errorf("kept %v", got)
	}
}

// What a disk has no room for is in memory, and is written when it has room again.
func TestMigrationsAreWrittenAfterAWriteThatFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	l := mustOpen(t, path)
	l.Add(nth(0))
	mustClose(t, l)

	errs := make(chan error, 1)
	l, err := Open(path, func(err error) { errs <- err })
	if err != nil {
		t.Fatal(err)
	}
	good := l.file
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	l.file = readOnly // the writer has no reason to look yet
	l.Add(nth(1))
	if err := <-errs; !errors.Is(err, os.ErrPermission) && !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
	if got := skipped(l.Newest()); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("kept %v", got)
	}
	l.file = good
	l.Add(nth(2))
	mustClose(t, l)
	if got := skipped(mustOpen(t, path).Newest()); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("the file has %v", got)
	}
}

func TestHistoryWorksWithoutAFile(t *testing.T) {
	var l Log
	for n := range Kept + 1 {
		l.Add(nth(n))
	}
	if got := skipped(l.Newest()); !slices.Equal(got, upTo(1, Kept+1)) || l.Close() != nil {
		t.Errorf("kept %v", got)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("{\"ended\":\"2026-01-01T00:00:00Z\"}\n"))
	f.Add([]byte("\n\n{"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "history")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(path, func(err error) { t.Error(err) })
		if err != nil {
			return
		}
		before := len(l.Newest())
		l.Add(nth(1))
		mustClose(t, l)
		if after := len(mustOpen(t, path).Newest()); after != min(before+1, Kept) {
			t.Errorf("%d migrations, then %d", before, after)
		}
	})
}
