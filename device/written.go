// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/fbpp-project/fbpp/device/freeset"
)

// orderByWritten is the name of the frontend's dirty log as the source of an order.
const orderByWritten = "written"

// writes tells what the guest writes. The zero value cannot.
type writes struct {
	begun time.Time // the request: the dirty log was armed before
	until time.Time // when it is looked at
	ask   func(ctx context.Context, pages []freeset.Range) ([]byte, error)
}

// peekTime is kept free for a peek, and for the way back of the answer.
const peekTime = reserve

// errNoTimeToWatch says that a request ends too soon.
var errNoTimeToWatch = errors.New("the request leaves no time to see what the guest writes")

// maxWatched is the most frames of one peek: 256 GiB, so that an answer has 8 MiB.
const maxWatched = 1 << 26

// latest is when the wait ends: a request that ends soon shortens it.
func (w *writes) latest(ctx context.Context) time.Time {
	if deadline, ok := ctx.Deadline(); ok && w.until.After(deadline.Add(-2*peekTime)) {
		return deadline.Add(-2 * peekTime)
	}
	return w.until
}

// find waits, and adds to hot what was written. After an error some of it may be there.
func (w *writes) find(ctx context.Context, hot *freeset.Set) error {
	latest := w.latest(ctx)
	if latest.Before(w.begun) {
		return errNoTimeToWatch
	}
	timer := time.NewTimer(time.Until(latest))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, pages := range peeksAt(hot.Memory()) {
		// Free memory is not answered while a peek is open.
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < peekTime {
			return errNoTimeToWatch
		}
		answer, err := w.ask(ctx, pages)
		if err != nil {
			return fmt.Errorf("ask what was written: %w", err)
		}
		if err := addWritten(hot, pages, answer); err != nil {
			return err
		}
	}
	return nil
}

// peeksAt divides memory, as a set has it, into peeks of maxWatched frames each but for the last.
func peeksAt(memory []freeset.Range) (peeks [][]freeset.Range) {
	var pages []freeset.Range
	room := uint64(maxWatched) << freeset.FrameShift
	for _, r := range memory {
		for r.Length > 0 {
			part := freeset.Range{GPA: r.GPA, Length: min(r.Length, room)}
			pages, room = append(pages, part), room-part.Length
			r.GPA, r.Length = part.End(), r.Length-part.Length
			if room == 0 {
				peeks, pages, room = append(peeks, pages), nil, maxWatched<<freeset.FrameShift
			}
		}
	}
	if len(pages) > 0 {
		peeks = append(peeks, pages)
	}
	return peeks
}

// addWritten adds the frames of ranges whose bits are set.
func addWritten(hot *freeset.Set, pages []freeset.Range, answer []byte) error {
	frames := uint64(0)
	for _, r := range pages {
		frames += r.Length >> freeset.FrameShift
	}
	if uint64(len(answer)) != (frames+7)/8 {
		return fmt.Errorf("the answer to what was written of %d pages has %d bytes", frames, len(answer))
	}
	answer = append(answer, make([]byte, 8)...) // to be read a word at a time
	batch := make([]freeset.Block, 0, 1024)
	bit := uint64(0)
	for _, r := range pages {
		for first, end := r.GPA>>freeset.FrameShift, r.End()>>freeset.FrameShift; first < end; {
			n := min(64-bit%64, end-first) // frames in this word
			word := binary.LittleEndian.Uint64(answer[bit/64*8:]) >> (bit % 64)
			batch = appendRuns(batch, first, word&(^uint64(0)>>(64-n)))
			first, bit = first+n, bit+n
			if len(batch) > cap(batch)-64 || first == end {
				if _, _, err := hot.Add(batch, true); err != nil {
					return fmt.Errorf("note what was written: %w", err)
				}
				batch = batch[:0]
			}
		}
	}
	return nil
}

// appendRuns appends the runs of ones in a word, whose lowest bit is that of frame first.
func appendRuns(runs []freeset.Block, first, word uint64) []freeset.Block {
	for word != 0 {
		skip := uint64(bits.TrailingZeros64(word))
		word >>= skip
		n := uint64(bits.TrailingZeros64(^word))
		runs = append(runs, freeset.Block{First: first + skip, Count: n})
		word >>= n // a shift by 64 leaves nothing
		first += skip + n
	}
	return runs
}
