// SPDX-License-Identifier: Apache-2.0

package vmcoreinfo

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// pageSize is what notes are aligned to.
const pageSize = 4096

// osRelease is what the text of every note begins with.
const osRelease = "OSRELEASE="

// checkEvery is after how many pages a search looks at its context.
const checkEvery = 16 << 10

// Note is a note and where it was found.
type Note struct {
	GPA  uint64
	Raw  []byte // from its header to the end of its text
	Info *Info
}

// ReadAt reads the note at an address. An address without one is an error that
// wraps ErrNoNote.
func ReadAt(m *physmem.Memory, gpa uint64) (*Note, error) {
	var head [textAt + len(osRelease)]byte
	if err := m.Read(head[:], gpa); err != nil {
		return nil, fmt.Errorf("read VMCOREINFO: %w", err)
	}
	size, ok := noteSize(head[:])
	if !ok || !bytes.HasPrefix(head[textAt:], []byte(osRelease)) {
		return nil, fmt.Errorf("read VMCOREINFO at %#x: %w", gpa, ErrNoNote)
	}
	n := &Note{GPA: gpa, Raw: make([]byte, size)}
	if err := m.Read(n.Raw, gpa); err != nil {
		return nil, fmt.Errorf("read VMCOREINFO: %w", err)
	}
	var err error
	n.Info, err = Parse(n.Raw)
	return n, err
}

// Same tells whether the note is still where it was found, and unchanged.
func (n *Note) Same(m *physmem.Memory) (bool, error) {
	now := make([]byte, len(n.Raw))
	if err := m.Read(now, n.GPA); err != nil {
		return false, fmt.Errorf("read VMCOREINFO again: %w", err)
	}
	return bytes.Equal(now, n.Raw), nil
}

// Each looks at the beginning of each page that is no hole, and calls f for
// each note, until f returns false. A guest may hold several: of a kernel that
// ran before, of a guest of its own, or forged. It is for the caller to prove
// one.
func Each(ctx context.Context, m *physmem.Memory, f func(*Note) bool) error {
	done := fmt.Errorf("done") // ends the walk, and is not returned
	count := 0
	var head [textAt]byte
	err := eachPage(m, func(gpa uint64) error {
		if count++; count%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := m.Read(head[:], gpa); err != nil {
			return err
		}
		if _, ok := noteSize(head[:]); !ok {
			return nil
		}
		note, err := ReadAt(m, gpa)
		if err != nil {
			return nil // it only looked like one
		}
		if !f(note) {
			return done
		}
		return nil
	})
	if err != nil && err != done {
		return fmt.Errorf("search for VMCOREINFO: %w", err)
	}
	return nil
}

// eachPage calls f for each page that is no hole.
func eachPage(m *physmem.Memory, f func(gpa uint64) error) error {
	for _, r := range m.Regions() {
		err := physmem.EachData(r, func(gpa, size uint64) error {
			end := gpa + size
			for gpa = (gpa + pageSize - 1) &^ (pageSize - 1); gpa+pageSize <= end; gpa += pageSize {
				if err := f(gpa); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
