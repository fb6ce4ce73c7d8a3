// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// shadow replaces the frontend's log by one of the proxy. After a delay it copies the
// marks that the filter returns to the frontend's log.
func shadow(
	c *proxied, m *wire.Message, delay time.Duration, filter func(pages []uint64) []uint64,
) {
	v, err := wire.DecodeLog(m.Payload)
	if err != nil || len(m.FDs) != 1 {
		return
	}
	const prot = unix.PROT_READ | unix.PROT_WRITE
	real, err := unix.Mmap(m.FDs[0], int64(v.Offset), int(v.Size), prot, unix.MAP_SHARED)
	if err != nil {
		return
	}
	log, err := vhosttest.NewLog(v.Size * 8 * vhosttest.PageSize)
	if err != nil {
		c.t.Error(err)
		return
	}
	_ = log.Give(func(_ wire.Log, fd int) error { replaceFD(m, fd); return nil })
	go func() {
		defer log.Close()
		defer unix.Munmap(real)
		for c.ctx.Err() == nil {
			pages := filter(log.Harvest())
			if len(pages) > 0 {
				time.Sleep(delay)
			}
			mark(real, pages)
			time.Sleep(20 * time.Microsecond)
		}
	}()
}

// mark sets bits. It may also set bits again that a reader clears at the same time. This
// does not matter here.
func mark(log []byte, pages []uint64) {
	for _, p := range pages {
		if p/8 < uint64(len(log)) {
			log[p/8] |= 1 << (p % 8)
		}
	}
}

// onlyUsedRings returns a filter that keeps only pages of used rings.
func onlyUsedRings(c *proxied) func([]uint64) []uint64 {
	return func(pages []uint64) (kept []uint64) {
		for _, p := range pages {
			if _, ok := c.memory.Load(p); ok {
				kept = append(kept, p)
			}
		}
		return kept
	}
}

// learnUsedRing records the pages of a used ring for onlyUsedRings.
func learnUsedRing(c *proxied, m *wire.Message) {
	if a, err := wire.DecodeVringAddr(m.Payload); err == nil {
		c.memory.Store(a.Log/vhosttest.PageSize, true)
	}
}

// firstOfRun is a filter that keeps only the first page of each run of pages.
func firstOfRun(pages []uint64) (kept []uint64) {
	for i, p := range pages {
		if i == 0 || pages[i-1] != p-1 {
			kept = append(kept, p)
		}
	}
	return kept
}

// logBeforeWrite makes a proxy that marks all pages when the driver kicks. It waits until
// the frontend has read these marks, and only then lets the device work. The device's own
// marks are dropped.
func logBeforeWrite() *proxy {
	var log []byte
	p := &proxy{}
	p.request = func(c *proxied, m *wire.Message) bool {
		switch wire.Request(m.Request) {
		case wire.SetLogBase:
			v, _ := wire.DecodeLog(m.Payload)
			const prot = unix.PROT_READ | unix.PROT_WRITE
			l, err := unix.Mmap(m.FDs[0], int64(v.Offset), int(v.Size), prot, unix.MAP_SHARED)
			if err != nil {
				c.t.Error(err)
				return true
			}
			log = l // one page, which stays mapped until the test ends
			shadow(c, m, 0, func([]uint64) []uint64 { return nil })
		case wire.SetVringKick:
			theirs, ours := c.keep(m.FDs[0]), c.eventfd()
			replaceFD(m, ours)
			c.follow(50*time.Microsecond, func() {
				var b [8]byte
				if n, _ := unix.Read(theirs, b[:]); n != len(b) {
					return
				}
				c.mu.Lock()
				l := log
				c.mu.Unlock()
				for i := range l {
					l[i] = 0xff
				}
				for range 20000 { // until all of it has been read
					if !slices.ContainsFunc(l, func(b byte) bool { return b != 0 }) {
						break
					}
					time.Sleep(100 * time.Microsecond)
				}
				_, _ = unix.Write(ours, b[:])
			})
		}
		return true
	}
	return p
}
