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
	until  time.Time // when all of it counts that was written since the dirty log was armed
	memory []freeset.Range
	ask    func(ctx context.Context, pages []freeset.Range) ([]byte, error)
}

// peekTime is kept free for a peek and the way back of the answer: free memory must not be lost for
// an order.
const peekTime = reserve

// errNoTimeToWatch says that a request ends too soon.
var errNoTimeToWatch = errors.New("the request leaves no time to see what the guest writes")

// maxWatched is the most frames of one question: 256 GiB, so that an answer has 8 MiB.
const maxWatched = 1 << 26

// find waits, and adds to hot what was written. The request's deadline shortens the wait.
func (w *writes) find(ctx context.Context, hot *freeset.Set) error {
	until := w.until
	if deadline, ok := ctx.Deadline(); ok {
		if time.Until(deadline) < 2*peekTime {
			return errNoTimeToWatch
		}
		if latest := deadline.Add(-2 * peekTime); until.After(latest) {
			until = latest
		}
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, r := range wholeFrames(w.memory) {
		for r.Length > 0 {
			part := freeset.Range{GPA: r.GPA, Length: min(r.Length, maxWatched<<freeset.FrameShift)}
			answer, err := w.ask(ctx, []freeset.Range{part})
			if err != nil {
				return fmt.Errorf("ask what was written: %w", err)
			}
			if err := addWritten(hot, part, answer); err != nil {
				return err
			}
			r.GPA, r.Length = part.End(), r.Length-part.Length
		}
	}
	return nil
}

// wholeFrames returns the memory of ranges, sorted, without incomplete frames.
func wholeFrames(memory []freeset.Range) (whole []freeset.Range) {
	const within = 1<<freeset.FrameShift - 1
	for _, r := range freeset.Merge(memory) {
		skip := -r.GPA & within
		if r.Length < skip {
			continue
		}
		r.GPA, r.Length = r.GPA+skip, (r.Length-skip)&^within
		if r.Length > 0 {
			whole = append(whole, r)
		}
	}
	return whole
}

// addWritten adds the frames of a range whose bits are set.
func addWritten(hot *freeset.Set, of freeset.Range, answer []byte) error {
	first, frames := of.GPA>>freeset.FrameShift, of.Length>>freeset.FrameShift
	if uint64(len(answer)) != (frames+7)/8 {
		return fmt.Errorf("the answer to what was written of %d pages has %d bytes", frames, len(answer))
	}
	answer = append(answer, make([]byte, 8)...) // to be read a word at a time
	batch := make([]freeset.Block, 0, 1024)
	for at := uint64(0); at < frames; at += 64 {
		word := binary.LittleEndian.Uint64(answer[at/8:])
		if left := frames - at; left < 64 {
			word &= 1<<left - 1
		}
		for offset := uint64(0); word != 0; {
			skip := uint64(bits.TrailingZeros64(word))
			word >>= skip
			n := uint64(bits.TrailingZeros64(^word))
			batch = append(batch, freeset.Block{First: first + at + offset + skip, Count: n})
			word >>= n // all of it for a full word: a shift by 64 leaves nothing
			offset += skip + n
		}
		if len(batch) > cap(batch)-64 || at+64 >= frames {
			if _, _, err := hot.Add(batch, true); err != nil {
				return fmt.Errorf("note what was written: %w", err)
			}
			batch = batch[:0]
		}
	}
	return nil
}
