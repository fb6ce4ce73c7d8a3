// SPDX-License-Identifier: Apache-2.0

package vmcoreinfo

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

// pageSize is the alignment of notes, in bytes.
const pageSize = 4096

// osRelease begins the text of every note.
const osRelease = "OSRELEASE="

// checkEvery is how many pages a search reads between checks of its context.
const checkEvery = 16 << 10

// Note is a VMCOREINFO note in guest memory.
type Note struct {
	GPA  uint64 // guest-physical address
	Raw  []byte // from the header to the end of the text
	Info *Info
}

// ReadAt reads the note at a guest-physical address. Without a note there, the
// error wraps ErrNoNote.
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

// Same says whether the note is still at its address, unchanged.
func (n *Note) Same(m *physmem.Memory) (bool, error) {
	now := make([]byte, len(n.Raw))
	if err := m.Read(now, n.GPA); err != nil {
		return false, fmt.Errorf("read VMCOREINFO again: %w", err)
	}
	return bytes.Equal(now, n.Raw), nil
}

// Each looks for notes at the beginning of each page that is not a hole. It calls f
// for each, until f returns false. A guest's memory may hold several: of a kernel
// that ran earlier, of a nested guest, or forged by a program. The caller has to
// prove which is the right one. When ctx ends, the error wraps its cause.
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
			return nil // the header of a note, but not a note
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

// eachPage calls f for each page that is not a hole.
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
