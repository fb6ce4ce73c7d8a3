// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustOpen(t testing.TB, path string) *Log {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
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
				if err := l.Add(nth(n)); err != nil {
					t.Fatal(err)
				}
				n++
			}
		}
		if got, want := skipped(l.Newest()), upTo(max(0, n-Kept), n); !slices.Equal(got, want) {
			t.Fatalf("kept %v, want %v", got, want)
		}
		l.Close()
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
		if err := l.Add(nth(n)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content = append([]byte("nonsense\n\n{}\n"), content[:len(content)-5]...) // the last is cut off
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, path)
	if err := l.Add(nth(9)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if got := skipped(mustOpen(t, path).Newest()); !slices.Equal(got, []int{0, 1, 9}) {
		t.Errorf("kept %v", got)
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("x"), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{large, "/dev/null", t.TempDir(), "/nowhere/history"} {
		if l, err := Open(path); err == nil {
			l.Close()
			t.Errorf("%s was taken", path)
		} else if !strings.Contains(err.Error(), "history") {
			t.Errorf("%s: %v", path, err)
		}
	}
	content, err := os.ReadFile(large)
	if err != nil || len(content) != maxFile+1 {
		t.Errorf("a file that is no history was changed: %d bytes, %v", len(content), err)
	}
}

// A write error loses the migration's line in the file. It stays in memory.
func TestAFileThatCannotBeWrittenTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	l := mustOpen(t, path)
	if err := l.Add(nth(0)); err != nil {
		t.Fatal(err)
	}
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l.file.Close()
	l.file = readOnly
	if err := l.Add(nth(1)); err == nil {
		t.Error("no error")
	}
	if got := skipped(l.Newest()); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("kept %v", got)
	}
	l.Close()
	if got := skipped(mustOpen(t, path).Newest()); !slices.Equal(got, []int{0}) {
		t.Errorf("the file has %v", got)
	}
}

func TestWithoutAFile(t *testing.T) {
	var l Log
	for n := range Kept + 1 {
		if err := l.Add(nth(n)); err != nil {
			t.Fatal(err)
		}
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
		l, err := Open(path)
		if err != nil {
			return
		}
		before := len(l.Newest())
		if err := l.Add(nth(1)); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if after := len(mustOpen(t, path).Newest()); after != min(before+1, Kept) {
			t.Errorf("%d migrations, then %d", before, after)
		}
	})
}
