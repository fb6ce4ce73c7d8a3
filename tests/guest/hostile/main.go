// SPDX-License-Identifier: Apache-2.0

// Command hostile is a driver of virtio-fbpp that violates docs/spec.md, in a different
// way for each case. It runs in a test guest instead of the agent:
//
//	hostile CASE
//
// It says hello, prints a line when the device has read it, and answers each
// request in the way of its case.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/virtio"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

// Sizes of the memory that the device sees, in bytes. A message is one page at
// most.
const (
	pageSize = 4096
	events   = 16
	messages = 128
)

// driver is the transport: it checks none of the protocol's rules.
type driver struct {
	dev      *virtio.Device
	events   *dma.Region
	messages *dma.Region
	sent     int
	// own is memory without content. A block in it may be reported as free, though
	// it is allocated.
	own *dma.Region
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected a case, got %q", args)
	}
	c, ok := cases()[args[0]]
	if !ok {
		return fmt.Errorf("no case %q", args[0])
	}
	d, err := open()
	if err != nil {
		return err
	}
	defer d.dev.Close()
	if err := d.post(hello(c.features)); err != nil {
		return err
	}
	for d.dev.Queue(protocol.ReportQueue).InFlight() > 0 {
		if _, _, _, err := d.dev.Queue(protocol.ReportQueue).Used(); err != nil {
			return err
		}
	}
	fmt.Println("the device read the hello")
	for {
		e, err := d.receive()
		if err != nil {
			return err
		}
		switch {
		case e.Type == protocol.EventChanged && e.Flags&protocol.EventHelloWanted != 0:
			err = d.post(hello(c.features))
		case e.Type == protocol.EventReportFree && c.answer != nil:
			err = c.answer(d, e.Generation)
		}
		if err != nil {
			return err
		}
	}
}

// open finds the device and gives it buffers for events.
func open() (_ *driver, err error) {
	id := virtio.ID{Vendor: protocol.PCIVendorID, Device: protocol.PCIDeviceID}
	found, err := virtio.Find(id)
	if err != nil || len(found) == 0 {
		return nil, errors.Join(errors.New("find the device"), err)
	}
	d := &driver{}
	for region, size := range map[**dma.Region]int{
		&d.events: events * pageSize, &d.messages: messages * pageSize, &d.own: 64 * pageSize,
	} {
		if *region, err = dma.New(size); err != nil {
			return nil, err
		}
	}
	options := virtio.Options{Queues: protocol.NumQueues, Log: zap.NewNop()}
	d.dev, err = virtio.Open(found[0], id, options)
	if err != nil {
		return nil, err
	}
	for i := range events {
		if err := d.offer(i); err != nil {
			return nil, err
		}
	}
	d.dev.Start()
	d.dev.Queue(protocol.EventQueue).WantInterrupts(true)
	d.dev.Queue(protocol.EventQueue).Kick()
	return d, nil
}

// offer gives the device an empty buffer for an event.
func (d *driver) offer(i int) error {
	event := d.events.Page(i).Slice(0, protocol.EventSize)
	return d.dev.Queue(protocol.EventQueue).Add(i, nil, []dma.Slice{event})
}

// receive waits for the next event.
func (d *driver) receive() (protocol.Event, error) {
	q := d.dev.Queue(protocol.EventQueue)
	for {
		i, _, ok, err := q.Used()
		if err != nil {
			return protocol.Event{}, err
		}
		if ok {
			e, err := protocol.DecodeEvent(d.events.Page(i).Bytes())
			if err := errors.Join(err, d.offer(i)); err != nil {
				return e, err
			}
			q.Kick()
			return e, err
		}
		if _, err := d.dev.Wait(virtio.Forever); err != nil {
			return protocol.Event{}, err
		}
	}
}

// post sends a message of at most a page, without checking it.
func (d *driver) post(message []byte) error {
	q := d.dev.Queue(protocol.ReportQueue)
	for {
		_, _, ok, err := q.Used()
		if err != nil {
			return err
		}
		if !ok && q.InFlight() < messages {
			break
		}
	}
	page := d.messages.Page(d.sent % messages)
	d.sent++
	part := page.Slice(0, copy(page.Bytes(), message))
	if err := q.Add(d.sent, []dma.Slice{part}, nil); err != nil {
		return err
	}
	q.Kick()
	return nil
}

// ownRecords returns records of order 0 for the driver's own memory, sorted.
func (d *driver) ownRecords() []protocol.Record {
	var records []protocol.Record
	for _, s := range d.own.Slice(0, len(d.own.Bytes())).AppendSegments(nil) {
		for off := uint64(0); off < uint64(s.Len); off += pageSize {
			records = append(records, protocol.MakeRecord((s.Addr+off)/pageSize, 0))
		}
	}
	slices.Sort(records)
	return records
}
