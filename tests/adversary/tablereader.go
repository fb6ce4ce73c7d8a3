// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// TableReader is a source that reads the guest's page table from the host: the state of
// each page, and the order of its block. It reads the two at different times. So it can
// take the value of a page's owner for an order, and report a block with a page that is
// in use. It avoids that by asking QEMU which pages of the table were written.
type TableReader struct {
	// IgnoreWrites reports blocks even if their entries were written meanwhile,
	// which loses pages.
	IgnoreWrites bool

	table, first, end uint64 // address; page numbers

	mu      sync.Mutex // guards what follows
	look    Look
	dropped uint64 // blocks that the last request left out, as their entries were written
}

// Look is how the guest's table is read.
type Look struct {
	StateFirst bool          // read all states before all orders; otherwise after
	Between    time.Duration // time between the two
}

// Set says how the next request is to be answered.
func (l *TableReader) Set(how Look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look = how
}

// Dropped is the number of blocks that the last request found, and left out as
// their entries were written.
func (l *TableReader) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// find reads the place of the table from the guest's status.
func (l *TableReader) find(status map[string]uint64) error {
	l.table, l.first, l.end = status["table"], status["first"], status["end"]
	if l.table%entrySize != 0 {
		return fmt.Errorf("the guest's table is at %#x: an entry may lie in two pages", l.table)
	}
	return nil
}

// serve serves a device with this source until it is told to end.
func (l *TableReader) serve() (socket string, end func(), err error) {
	dir, err := os.MkdirTemp("", "fbpp-reader-") // short, for a socket's name
	if err != nil {
		return "", nil, fmt.Errorf("serve the device: %w", err)
	}
	socket = filepath.Join(dir, "sock")
	listener, err := vhostuser.Listen(socket)
	if err != nil {
		return "", nil, fmt.Errorf("serve the device: %w", err)
	}
	d := device.New(device.Options{More: []source.Source{l}})
	server, err := vhostuser.NewServer(d.VhostUser(), nil)
	if err != nil {
		listener.Close()
		return "", nil, fmt.Errorf("serve the device: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(ctx, listener) }) // until the end
	return socket, func() {
		cancel()
		served.Wait()
		listener.Close()
		os.RemoveAll(dir)
	}, nil
}

// Name implements [source.Source].
func (l *TableReader) Name() string { return "table-reader" }

// Where the fields of an entry are: struct page of guest/page.h.
const (
	entryState = 4
	entryOrder = 6
	stateFree  = 0
	mostOrder  = 10
)

// Ask implements [source.Source].
func (l *TableReader) Ask(ctx context.Context, r source.Request, f *source.Findings) error {
	if r.Memory == nil || r.Written == nil {
		return source.Failf(protocol.AnswerInternal, "there is nothing to look at")
	}
	l.mu.Lock()
	how := l.look
	l.mu.Unlock()
	passes := make([][]byte, 2)
	for i := range passes {
		if i > 0 {
			time.Sleep(how.Between)
		}
		passes[i] = make([]byte, l.end*entrySize)
		if _, err := r.Memory.ReadAt(passes[i], int64(l.table)); err != nil {
			return fmt.Errorf("read the guest's table: %w", err)
		}
	}
	orders, states := passes[0], passes[1]
	if how.StateFirst {
		orders, states = states, orders
	}
	written, err := l.written(ctx, r)
	if err != nil {
		return err
	}
	var blocks []freeset.Block
	dropped := uint64(0)
	for pfn := l.first; pfn < l.end; {
		b := l.block(orders, states, pfn)
		pfn++
		switch {
		case b.Count == 0:
			continue
		case written(pfn-1) && !l.IgnoreWrites:
			dropped++
			continue
		}
		blocks = append(blocks, b)
		pfn = b.First + b.Count
	}
	l.mu.Lock()
	l.dropped = dropped
	l.mu.Unlock()
	_, _, err = f.Free.Add(blocks, false)
	return err
}

// block returns the free block that begins at a page, if the table says so.
func (l *TableReader) block(orders, states []byte, pfn uint64) (b freeset.Block) {
	at := pfn * entrySize
	order := binary.LittleEndian.Uint16(orders[at+entryOrder:])
	if states[at+entryState] != stateFree || order > mostOrder || pfn&(1<<order-1) != 0 ||
		pfn+1<<order > l.end {
		return b
	}
	return freeset.Block{First: pfn, Count: 1 << order}
}

// written peeks at the whole table. It returns a function that says whether a page's
// entry was written.
func (l *TableReader) written(
	ctx context.Context, r source.Request,
) (func(pfn uint64) bool, error) {
	from := l.table &^ (pageSize - 1)
	to := (l.table + l.end*entrySize + pageSize - 1) &^ (pageSize - 1)
	bits, err := r.Written(ctx, []freeset.Range{{GPA: from, Length: to - from}})
	return func(pfn uint64) bool {
		page := (l.table + pfn*entrySize - from) / pageSize
		return bits[page/8]>>(page%8)&1 != 0
	}, err
}
