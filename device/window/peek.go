// SPDX-License-Identifier: Apache-2.0

package window

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// Errors of a peek.
var (
	ErrNoPeek   = errors.New("the frontend has no PEEK")
	ErrPeekRoom = errors.New("the window has no room for the answer to a peek")
)

// CanPeek says whether the frontend can tell which pages were written.
func (w *Window) CanPeek() bool { return w.terms.Features&protocol.WindowFeaturePeek != 0 }

// Peek asks the frontend, during request generation, which pages of the given
// ranges were written since the dirty log was armed. The ranges are sorted,
// disjoint, not empty, and made of whole frames of guest memory. It returns the
// number to pass to Peeked. The answer overwrites the slots for ranges.
func (w *Window) Peek(generation uint64, pages []freeset.Range) (number uint64, err error) {
	if !w.CanPeek() {
		return 0, ErrNoPeek
	}
	w.peek = peek{number: w.peek.number + 1, ranges: len(pages)}
	for _, r := range pages {
		w.peek.frames += r.Length >> freeset.FrameShift
	}
	if at, n := w.peekBitmap(); n > uint64(len(w.mem)) || at > uint64(len(w.mem))-n {
		return 0, fmt.Errorf("peek at %d ranges of %d pages: %w", len(pages), w.peek.frames, ErrPeekRoom)
	}
	for i, r := range pages {
		slot := w.mem[protocol.WindowHeaderSize+i*protocol.WindowRangeSize:]
		binary.LittleEndian.PutUint64(slot, r.GPA)
		binary.LittleEndian.PutUint64(slot[8:], r.Length)
	}
	w.store64(protocol.WindowPeekGenerationOffset, generation)
	w.store64(protocol.WindowPeekCountOffset, uint64(len(pages)))
	w.store64(protocol.WindowPeekNumberOffset, w.peek.number)
	w.wake()
	return w.peek.number, nil
}

// peek describes the newest peek.
type peek struct {
	number uint64
	ranges int
	frames uint64
}

// peekBitmap returns the offset of the answer in the window and its length, in
// bytes.
func (w *Window) peekBitmap() (at, n uint64) {
	return protocol.WindowHeaderSize + uint64(w.peek.ranges)*protocol.WindowRangeSize,
		(w.peek.frames + 7) / 8
}

// Peeked returns the answer to peek number: a bit for each page in the order of
// the ranges, set if the page was written. ok is false while there is no answer,
// and for any peek but the newest. The answer is a copy. It is not checked.
func (w *Window) Peeked(number uint64) (written []byte, ok bool, err error) {
	if w.load64(protocol.WindowPeekAnsweredOffset) != number || number != w.peek.number {
		return nil, false, nil
	}
	if status := w.load32(protocol.WindowPeekStatusOffset); status != 0 {
		return nil, true, fmt.Errorf("peek: the frontend answers with status %d", status)
	}
	at, n := w.peekBitmap()
	written = make([]byte, n)
	copy(written, w.mem[at:])
	return written, true, nil
}
