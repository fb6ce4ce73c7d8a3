// SPDX-License-Identifier: Apache-2.0

// Package history keeps the outcomes of a guest's newest migrations in a file, so
// that they outlive the process.
//
// The file has one JSON object per line for each migration, the newest last. A
// line that cannot be parsed, such as one that a crash cut off, is skipped.
package history

import (
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
	// Cache is the policy for cold page cache when the migration ended; empty if an
	// older version noted it.
	Cache string `json:"cache,omitempty"`
	// Order says whether QEMU used an order: none or used. Hybrid is what query-migrate
	// calls free-page-hints.hybrid. Both are empty where QEMU does not say it, Hybrid
	// also where there was to be no hybrid migration.
	Order  string `json:"order,omitempty"`
	Hybrid string `json:"hybrid,omitempty"`
	// DroppedBytes is the cache that the guest says it dropped for the migration.
	DroppedBytes uint64 `json:"dropped_bytes,omitempty"`
}

// Kept is how many migrations a Log keeps. The file has at most twice as many
// lines.
const Kept = 100

// maxFile is the largest file that Open accepts, in bytes: many times what a Log
// writes.
const maxFile = 1 << 20

// closePatience bounds how long Close waits for a disk that does not answer.
const closePatience = 2 * time.Second

// Log keeps the newest migrations. It is safe for concurrent use. The zero value
// keeps them in memory only. None of its methods but Close waits for the disk.
type Log struct {
	mu     sync.Mutex
	newest []Migration   // the newest last
	added  uint64        // how many there were since Open
	wake   chan struct{} // tells the writer of news; nil without a file

	// The rest is the writer's.
	file   *os.File
	failed func(error)
	size   int64 // of the file, in bytes
	lines  int
	saved  uint64 // how many of added are in the file
	done   chan struct{}
}

// Open returns a Log that continues the file at path, or creates it. The caller
// closes it. Open refuses what is not a history, and leaves it as it is. failed is
// called, on a goroutine of the Log's, when the file cannot be written. What is
// missing then is written with the next migration.
func Open(path string, failed func(error)) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	l := &Log{file: f, failed: failed, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := l.read(path); err != nil {
		f.Close()
		return nil, err
	}
	go l.write(l.wake)
	return l, nil
}

// read takes over what is in the file.
func (l *Log) read(path string) error {
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return fmt.Errorf("read the history: %s is no history: give a file of its own", path)
	}
	content, err := io.ReadAll(io.LimitReader(l.file, maxFile))
	if err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	ours := len(content) == 0
	for line := range bytes.Lines(content) {
		l.lines++
		ours = ours || bytes.HasPrefix(line, []byte(begin))
		var m Migration
		if json.Unmarshal(line, &m) == nil && !m.Ended.IsZero() {
			l.keep(m)
		}
	}
	if !ours {
		return fmt.Errorf("read the history: %s has other contents: give a file of its own", path)
	}
	l.size = int64(len(content))
	if len(content) > 0 && content[len(content)-1] != '\n' {
		l.lines = 2 * Kept // a line was cut off: the next write replaces them all
	}
	return nil
}

// begin is how each line begins.
const begin = `{"ended":"`

// Close saves what is not in the file yet, and closes it. Migrations added later are
// kept in memory only.
func (l *Log) Close() error {
	l.mu.Lock()
	wake := l.wake
	l.wake = nil
	l.mu.Unlock()
	if wake == nil {
		return nil
	}
	close(wake)
	select {
	case <-l.done:
		return l.file.Close()
	case <-time.After(closePatience):
		return errors.New("close the history: its disk does not answer")
	}
}

// Add keeps a migration, and has it saved.
func (l *Log) Add(m Migration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(m)
	l.added++
	if l.wake != nil {
		select {
		case l.wake <- struct{}{}:
		default: // the writer has yet to look
		}
	}
}

func (l *Log) keep(m Migration) {
	l.newest = append(l.newest, m)
	if n := len(l.newest); n > Kept {
		l.newest = slices.Clone(l.newest[n-Kept:])
	}
}

// Newest returns the migrations that are kept, the newest last.
func (l *Log) Newest() []Migration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.newest)
}

// write saves what is added until wake is closed.
func (l *Log) write(wake <-chan struct{}) {
	defer close(l.done)
	for range wake {
		l.save()
	}
	l.save()
}

// save writes what is not in the file yet.
func (l *Log) save() {
	l.mu.Lock()
	newest, added := slices.Clone(l.newest), l.added
	l.mu.Unlock()
	missing := added - l.saved
	if missing == 0 {
		return
	}
	all := missing > uint64(len(newest)) || l.lines+int(missing) > 2*Kept
	if !all {
		newest = newest[len(newest)-int(missing):]
	}
	if err := l.put(newest, all); err != nil {
		l.failed(fmt.Errorf("write the history: %w", err))
		return
	}
	l.saved = added
}

// put appends migrations to the file, or replaces all that is in it. Replacing
// writes over the file before it is shortened: it takes no room on a full disk, and
// a crash in the middle leaves lines of both. When an append fails, the part that
// was written is removed, so that the next line starts on its own.
func (l *Log) put(ms []Migration, all bool) error {
	var text bytes.Buffer
	for _, m := range ms {
		if err := json.NewEncoder(&text).Encode(m); err != nil {
			return err
		}
	}
	at, lines := l.size, l.lines
	if all {
		at, lines = 0, 0
	}
	end := at + int64(text.Len())
	if _, err := l.file.WriteAt(text.Bytes(), at); err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	if err := l.file.Truncate(end); err != nil {
		return err
	}
	l.size, l.lines = end, lines+len(ms)
	return nil
}
