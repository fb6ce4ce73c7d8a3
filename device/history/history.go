// SPDX-License-Identifier: Apache-2.0

// Package history keeps the outcomes of a guest's newest migrations in a file, so
// that they outlive the process.
//
// The file has one JSON object per line for each migration, the newest last. A
// line that cannot be parsed, such as one that a crash cut off, is skipped.
package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// Migration describes an outgoing migration that ended, in QEMU's figures.
type Migration struct {
	Ended  time.Time `json:"ended"`
	Result string    `json:"result"` // completed, failed or cancelled
	// Hints is what query-migrate calls free-page-hints.status.
	Hints            string `json:"hints"`
	SkippedBytes     uint64 `json:"skipped_bytes"`
	TransferredBytes uint64 `json:"transferred_bytes"`
	TotalMS          uint64 `json:"total_ms"`
	DowntimeMS       uint64 `json:"downtime_ms"`
}

// Kept is how many migrations a Log keeps. The file has at most twice as many
// lines.
const Kept = 100

// maxFile is the largest file that Open accepts, in bytes: many times what a Log
// writes.
const maxFile = 1 << 20

// Log keeps the newest migrations. It is safe for concurrent use. The zero value
// keeps them in memory only.
type Log struct {
	mu     sync.Mutex
	file   *os.File // nil: none
	size   int64    // of the file, in bytes
	lines  int
	newest []Migration // the newest last
}

// Open returns a Log that continues the file at path, or creates it. The caller
// closes it. Open refuses a file that is not regular or too large to be a history,
// and leaves it as it is.
func Open(path string) (_ *Log, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("open the history: %s is no history: give a file of its own", path)
	}
	l := &Log{file: f, size: info.Size()}
	lines := bufio.NewScanner(io.LimitReader(f, maxFile))
	lines.Buffer(nil, maxFile)
	for lines.Scan() {
		l.lines++
		var m Migration
		if json.Unmarshal(lines.Bytes(), &m) == nil && !m.Ended.IsZero() {
			l.keep(m)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	if l.size > 0 && (l.lines > 2*Kept || !l.endsLine()) {
		return l, l.rewrite()
	}
	return l, nil
}

// endsLine tells whether the file ends with a whole line.
func (l *Log) endsLine() bool {
	var last [1]byte
	_, err := l.file.ReadAt(last[:], l.size-1)
	return err == nil && last[0] == '\n'
}

// Close closes the file. Migrations added later are kept in memory only.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}

// Add keeps a migration. After an error the migration is in memory only.
func (l *Log) Add(m Migration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(m)
	if l.file == nil {
		return nil
	}
	if l.lines >= 2*Kept {
		return l.rewrite()
	}
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return l.write(append(line, '\n'), 1)
}

func (l *Log) keep(m Migration) {
	l.newest = append(l.newest, m)
	if n := len(l.newest); n > Kept {
		l.newest = slices.Clone(l.newest[n-Kept:])
	}
}

// write appends n lines to the file. When the disk is full, it removes the part
// that was written, so that the next line starts on its own.
func (l *Log) write(lines []byte, n int) error {
	if _, err := l.file.WriteAt(lines, l.size); err != nil {
		return errors.Join(fmt.Errorf("write the history: %w", err), l.file.Truncate(l.size))
	}
	l.size += int64(len(lines))
	l.lines += n
	return nil
}

// rewrite replaces the file's contents by the migrations that are kept.
func (l *Log) rewrite() error {
	var all bytes.Buffer
	for _, m := range l.newest {
		if err := json.NewEncoder(&all).Encode(m); err != nil {
			return fmt.Errorf("write the history: %w", err)
		}
	}
	l.size, l.lines = 0, 0
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return l.write(all.Bytes(), len(l.newest))
}

// Newest returns the migrations that are kept, the newest last.
func (l *Log) Newest() []Migration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.newest)
}
