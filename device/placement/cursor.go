// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"iter"

	"github.com/fbpp-project/fbpp/device/freeset"
)

// cursor goes through the ranges of one class.
type cursor struct {
	class Class
	next  func() (freeset.Range, bool)
	stop  func()
	now   freeset.Range
	more  bool // whether there is a range, now
}

func newCursor(class Class, ranges iter.Seq[freeset.Range]) *cursor {
	c := &cursor{class: class}
	c.next, c.stop = iter.Pull(ranges)
	c.now, c.more = c.next()
	return c
}

// seek goes on to the range that has the address, or the next one behind it, if there is any.
func (c *cursor) seek(at uint64) bool {
	for c.more && c.now.End() <= at {
		c.now, c.more = c.next()
	}
	return c.more
}
