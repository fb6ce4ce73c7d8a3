// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// Memory with content that the answer puts in order. What is cold has the lowest
// addresses, and what is hot high ones, so that QEMU's own order is another.
var (
	cold = []freeset.Range{{GPA: filled, Length: 4 << 20}}
	hot  = []freeset.Range{
		{GPA: filled + 5<<20 + pageSize, Length: pageSize},
		{GPA: used, Length: 256 << 10},
	}
)

// Two pages with content that are in no list.
const (
	common  = filled + 30<<20
	written = filled + 29<<20
)

// ordered is a migration whose answer says an order. The source writes down each page
// with content that it sends.
type ordered struct {
	*skipping
	trace    string // its log
	hostPage uint64
	written  []uint64 // pages that were written after the answer
}

// newOrdered makes two machines. With a host page of 2 MiB these have huge pages.
func newOrdered(t testing.TB, hostPage uint64, capabilities ...string) *ordered {
	t.Helper()
	if hostPage != pageSize {
		lab.ReserveHugePages(t, 64)
	}
	log := filepath.Join(t.TempDir(), "trace-")
	s := newSkipping(t, false, func(c *vm.Config) {
		c.Options = append(c.Options, "-trace", "ram_save_page", "-trace", "*low_pending", "-D", log+"%d")
		if hostPage != pageSize {
			c.Memory = []string{
				"memory-backend-memfd,id=ram,size=64M,share=on,hugetlb=on,hugetlbsize=2M",
			}
		}
	}, capabilities)
	return &ordered{skipping: s, trace: log + strconv.Itoa(s.m.PID()), hostPage: hostPage}
}

// answer answers with memory that is free and an order, and waits until QEMU has used
// it.
func (o *ordered) answer(hot, cold []freeset.Range) {
	o.t.Helper()
	o.m.awaitAsked(o.here).publishInOrder([]freeset.Range{free}, hot, cold)
	o.m.await("the answer is used", func() bool { return hintStatus(o.t, o.m) != "" })
	requireHint(o.t, o.m, "ok")
}

// gently calls f while next to nothing is sent: what f does comes before what is hot has been
// sent, however slow the test is.
func (o *ordered) gently(f func()) {
	o.t.Helper()
	limit := func(bandwidth int) {
		o.m.execute("migrate-set-parameters", map[string]any{"max-bandwidth": bandwidth})
	}
	limit(slowly / 16)
	f()
	limit(slowly)
}

// publishInOrder answers the newest request with an order.
func (w *rawWindow) publishInOrder(free, hot, cold []freeset.Range) {
	w.putRanges(slices.Concat(free, hot, cold))
	w.put64(protocol.WindowHotCountOffset, uint64(len(hot)))
	w.put64(protocol.WindowColdCountOffset, uint64(len(cold)))
	w.publish(protocol.AnswerOK, free...)
}

// class is a page's place in the order, or skipped.
type class int

const (
	classHot class = iota
	classCommon
	classCold
	classFree
)

// class returns the class of the host page that contains an address.
func (o *ordered) class(addr uint64) class {
	start, hostPage := addr&^(o.hostPage-1), o.hostPage
	touches := func(r freeset.Range) bool {
		return r.GPA < start+hostPage && start < r.GPA+r.Length
	}
	covers := func(r freeset.Range) bool {
		return r.GPA <= start && start+hostPage <= r.GPA+r.Length
	}
	switch {
	case addr >= free.GPA && addr-free.GPA < free.Length:
		return classFree
	case slices.ContainsFunc(hot, touches):
		return classHot
	case slices.ContainsFunc(cold, covers):
		return classCold
	}
	return classCommon
}

// sent returns the addresses of the pages with content that were sent, in the order of
// their first time.
func (o *ordered) sent() []uint64 {
	o.t.Helper()
	text, err := os.ReadFile(o.trace)
	if err != nil {
		o.t.Fatal(err)
	}
	var pages []uint64
	seen := map[uint64]bool{}
	for line := range strings.Lines(string(text)) {
		var at uint64
		_, rest, ok := strings.Cut(line, "ram_save_page ram: offset: ")
		if _, err := fmt.Sscanf(rest, "%v", &at); !ok || err != nil {
			continue // another event, or a line that is still being written
		}
		if at >= filled && at-filled < filledSize && !seen[at] {
			seen[at] = true
			pages = append(pages, at)
		}
	}
	return pages
}

// write waits until what is hot has been sent, and some more. Then it writes a page of
// each class.
func (o *ordered) write() {
	o.t.Helper()
	o.m.await("a page is sent that is in no list", func() bool {
		return slices.ContainsFunc(o.sent(), func(at uint64) bool {
			return o.class(at) == classCommon
		})
	})
	o.writeEach()
}

// writeEach writes a page of each class.
func (o *ordered) writeEach() {
	o.t.Helper()
	for _, at := range []uint64{hot[1].GPA, written, cold[0].GPA + 1<<20, rewritten} {
		o.m.fill(at, pageSize, 0xa5)
		o.written = append(o.written, at)
	}
}

// requireInOrder checks that the pages were sent in the order of their classes, and
// that all of them were.
func (o *ordered) requireInOrder() {
	o.t.Helper()
	sent := slices.DeleteFunc(o.sent(), func(at uint64) bool { return o.class(at) == classFree })
	inOrder := o.isInOrder(sent)
	if want := (filledSize - free.Length) / pageSize; !inOrder || len(sent) != int(want) {
		o.t.Errorf("%d pages of %d were sent, in order: %v", len(sent), want, inOrder)
	}
}

func (o *ordered) isInOrder(pages []uint64) bool {
	return slices.IsSortedFunc(pages, func(a, b uint64) int {
		return int(o.class(a)) - int(o.class(b))
	})
}

// requireArrived checks each page with content at the destination.
func (o *ordered) requireArrived() {
	o.t.Helper()
	if err := o.dst.Arrive(o.dst.ctx); err != nil {
		o.t.Fatal(err)
	}
	o.dst.requireRuns()
	got := o.dst.save(freeset.Range{GPA: filled, Length: filledSize})
	for at := uint64(0); at < filledSize; at += pageSize {
		want := byte(0x5a)
		if slices.Contains(o.written, filled+at) {
			want = 0xa5
		}
		p := got[at:][:pageSize]
		isZero := o.class(filled+at) == classFree && bytes.Equal(p, page(0))
		if !bytes.Equal(p, page(want)) && (!isZero || want == 0xa5) {
			o.t.Fatalf("page %#x is lost: it begins with % x", filled+at, p[:8])
		}
	}
}

// order returns how many bytes the source says were in order, or -1 without an order.
func (o *ordered) order() (hot, cold int64) {
	o.t.Helper()
	figures, err := o.m.QueryMigrate(o.m.ctx)
	if err != nil {
		o.t.Fatal(err)
	}
	if figures.Hints.Hot == nil || figures.Hints.Cold == nil {
		return -1, -1
	}
	return *figures.Hints.Hot, *figures.Hints.Cold
}

// bytesOf returns the sum of the ranges' lengths.
func bytesOf(ranges []freeset.Range) (n int64) {
	for _, r := range ranges {
		n += int64(r.Length)
	}
	return n
}
