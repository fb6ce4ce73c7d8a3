// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect/layout"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// Bounds on what the guest says of its CPUs.
const (
	maxCPUs    = 8192
	maxVisited = 1 << 18 // struct pages on all lists, in all tries
	maxTries   = 4       // for the lists of one CPU and zone
	timeShare  = 8       // of the time that is left, one part; most of it is for what follows
)

// errNoTime says that the lists' share of the time is over.
var errNoTime = errors.New("there was no time for all lists of CPUs")

// errRestless says that lists changed while they were read.
var errRestless = errors.New("lists of free pages changed while they were read")

// cpuLists reads the free pages that each CPU keeps for its next allocations, struct
// per_cpu_pages. They are on no list of the buddy allocator, and bear no mark.
//
// What proves that such a page is free are the links of its list. Let F be the first page of a
// list, and H the address of the list's head. F points back to H, and while the struct page of F
// is not written, it stays the first: who takes it writes its links (list_del). The same holds
// for the page after F, which F points to and which points back to F, and so on; and from the
// other end of the list. So H itself, which changes often, need not be trusted. See
// [ScanOptions.CPULists].
//
// That a list has the order that is assumed here shows in the number of pages that the kernel
// counts on all lists of the CPU and zone.
type cpuLists struct {
	k       *Kernel
	l       *layout.CPULists
	class   *pages.Classifier
	pages   *structPages
	offsets []byte // of each CPU's variables: words of 8 bytes
	visited int    // struct pages so far, in all tries
	limit   int    // of visited
	share   int    // of the time that is left, one part
}

// scanCPULists passes the lists on. why is the reason why some were left out, other than that
// they changed all the time.
func (k *Kernel) scanCPULists(
	ctx context.Context, zones []Zone, pass func([]Block) error,
) (why, err error) {
	c, err := newCPULists(k)
	if err != nil {
		return fmt.Errorf("find the lists of free pages of CPUs: %w", err), nil
	}
	return c.scan(ctx, zones, pass)
}

func (c *cpuLists) scan(
	ctx context.Context, zones []Zone, pass func([]Block) error,
) (why, err error) {
	own := ctx
	if end, ok := ctx.Deadline(); ok {
		var stop func()
		own, stop = context.WithTimeoutCause(ctx, time.Until(end)/time.Duration(c.share), errNoTime)
		defer stop()
	}
	for i := range zones {
		for at := 0; at < len(c.offsets); at += 8 {
			cpu := binary.LittleEndian.Uint64(c.offsets[at:])
			lists, err := c.settled(own, &zones[i], zones[i].pageset+cpu)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if errors.Is(err, errRestless) {
				continue
			}
			if err != nil {
				return fmt.Errorf("read lists of free pages of a CPU: %w", err), nil
			}
			for _, list := range lists {
				if err := pass(list); err != nil {
					return nil, err
				}
			}
		}
	}
	return nil, nil
}

func newCPULists(k *Kernel) (*cpuLists, error) {
	l := &k.layout.CPULists
	if l.Count == 0 {
		return nil, layout.ErrUnknown
	}
	count, err := k.word32(symbolCPUs)
	if err != nil {
		return nil, err
	}
	if count < 1 || count > maxCPUs {
		return nil, fmt.Errorf("%d CPUs: %w", count, layout.ErrUnknown)
	}
	table, err := k.symbols.Address(symbolPerCPU)
	if err != nil {
		return nil, err
	}
	c := &cpuLists{
		k: k, l: l, class: pages.NewClassifier(&k.layout.Page),
		pages: newStructPages(k), offsets: make([]byte, 8*count),
		limit: maxVisited, share: timeShare,
	}
	return c, k.space.Read(c.offsets, table)
}

// settled reads the lists of one CPU and zone, whose struct per_cpu_pages is at that address,
// until they do not change meanwhile. The error wraps errRestless if they always do.
func (c *cpuLists) settled(ctx context.Context, z *Zone, at uint64) ([][]Block, error) {
	head, again := make([]byte, c.l.Size), make([]byte, c.l.Size)
	var last error
	for range maxTries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := c.k.space.Read(head, at); err != nil {
			return nil, err
		}
		lists, n, err := c.walkAll(ctx, z, at, head)
		if err != nil && !errors.Is(err, errRestless) {
			return nil, err
		}
		last = errRestless
		if err == nil {
			if err = c.k.space.Read(again, at); err != nil {
				return nil, err
			}
			count := uint64(binary.LittleEndian.Uint32(head[c.l.Pages:]))
			if same := bytes.Equal(head, again); same && n == count {
				return lists, nil
			} else if same {
				last = fmt.Errorf("a CPU's lists have %d pages, and it counts %d: %w",
					n, count, layout.ErrUnknown)
			}
		}
		c.pages.forget()
	}
	return nil, last
}

// walkAll follows all lists of a struct per_cpu_pages, and returns how many pages they have.
func (c *cpuLists) walkAll(
	ctx context.Context, z *Zone, at uint64, head []byte,
) (lists [][]Block, n uint64, err error) {
	for i := range c.l.Count {
		offset := c.l.Lists + 16*i
		list, err := c.walk(ctx, z, at+uint64(offset), head[offset:], c.l.Order(i))
		if err != nil {
			return nil, 0, err
		}
		if len(list) > 0 {
			lists = append(lists, list)
			n += uint64(len(list)) << c.l.Order(i)
		}
	}
	return lists, n, nil
}

// walk follows one list. at is the address of its head, whose two links are given.
func (c *cpuLists) walk(
	ctx context.Context, z *Zone, at uint64, head []byte, order uint8,
) ([]Block, error) {
	word := func(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	var list []Block
	before := at
	for pos := word(head, 0); pos != at; {
		if c.visited++; c.visited > c.limit {
			return nil, fmt.Errorf("more than %d blocks on lists of CPUs: %w",
				c.limit, layout.ErrUnknown)
		}
		if c.visited%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		pfn, ok := c.frame(z, pos, order)
		if !ok {
			return nil, errRestless
		}
		p, evidence, err := c.pages.read(pfn)
		if err != nil {
			return nil, err
		}
		if word(p, c.l.Link+8) != before || !c.class.Unused(p) {
			return nil, errRestless
		}
		list = append(list, Block{PFN: pfn, Order: order, Evidence: evidence})
		before, pos = pos, word(p, c.l.Link)
	}
	if word(head, 8) != before {
		return nil, errRestless
	}
	return list, nil
}

// frame returns the first frame of the block with its links at an address. ok is false if there
// is no such block in the zone.
func (c *cpuLists) frame(z *Zone, link uint64, order uint8) (pfn uint64, ok bool) {
	size := uint64(c.k.layout.Page.Size)
	ahead := link - uint64(c.l.Link) - c.k.memMap.base
	pfn = ahead / size
	return pfn, ahead%size == 0 && pfn&(1<<order-1) == 0 && pfn >= z.Start &&
		pfn+1<<order <= z.Start+z.Spanned && c.k.mem.Contains(pfn<<pageShift, 1<<(order+pageShift))
}
