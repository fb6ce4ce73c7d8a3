// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Zeroes is the result of [CheckZeroes].
type Zeroes struct {
	Pages int        `json:"pages"` // looked at
	Wrong int        `json:"wrong"` // held something
	First []Mismatch `json:"first,omitempty"`
}

// CheckZeroes maps the given number of bytes and counts the pages that are not zero. It
// writes to each page before it reads it, because a page that is only read is the
// shared zero page. It does without huge pages, which the kernel clears in another way.
func CheckZeroes(bytes int64) (_ Zeroes, err error) {
	mem, err := mapPrivate(int(bytes))
	if err != nil {
		return Zeroes{}, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(mem)) }()
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return Zeroes{}, fmt.Errorf("refuse huge pages: %w", err)
	}
	var z Zeroes
	for off := 0; off < len(mem); off += PageSize {
		page := mem[off : off+PageSize]
		page[PageSize-1] = 1
		page[PageSize-1] = 0
		z.look(page)
	}
	return z, nil
}

// look checks and counts a page.
func (z *Zeroes) look(page []byte) {
	z.Pages++
	offset := content{}.check(page)
	if offset < 0 {
		return
	}
	z.Wrong++
	if len(z.First) < mismatchLimit {
		z.First = append(z.First, newMismatch(page, content{}, offset))
	}
}
