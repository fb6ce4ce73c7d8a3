// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/virtio"
)

const (
	eventBuffers = 8                        // that wait for the device on eventq
	messageSlots = 16                       // messages that the device may have to read at a time
	slotSize     = 2048                     // for the small parts of a message; divides a page
	slotTail     = slotSize - agent.MaxTail // where in a slot the trailer lies

	// sendLimit is how long Send waits until the device reads an older message. A host
	// that works is never so slow.
	sendLimit = 10 * time.Second
)

// Compile only if head and tail fit into a slot.
const (
	_ = uint(slotTail - agent.MaxHead)
	_ = uint(slotSize - slotTail - agent.MaxTail)
)

// PCI is the transport over a virtio-pci device.
type PCI struct {
	lg     *zap.Logger
	device device
	events queue
	report queue
	config protocol.Config // as it was last read

	bodies  *dma.Region // contains the bodies of messages; nil: no message has one
	memory  *dma.Region // event buffers and slots
	buffers [eventBuffers]dma.Slice
	last    []byte // the event about a program that Receive returned last
	slots   [messageSlots]dma.Slice
	free    []int // slots without a message
	out     [3]dma.Slice
}

// device and queue are what the transport needs of package virtio.
type device interface {
	Wait(limit time.Duration) (configChanged bool, err error)
	ReadConfig(p []byte) int
	Healthy() error
	Interrupt()
	Close() error
}

type queue interface {
	Add(token int, out, in []dma.Slice) error
	Used() (token int, written uint32, ok bool, err error)
	WantInterrupts(want bool)
	Kick()
	InFlight() int
	MaxSegments() int
}

var (
	_ agent.Transport = (*PCI)(nil)
	_ device          = (*virtio.Device)(nil)
	_ queue           = (*virtio.Queue)(nil)
)

// Open binds the virtio-fbpp device at a PCI address and starts it. The bodies of messages have
// to be in the region bodies, which the caller closes after the result. It may be nil if no
// message has a body. Event buffers have eventSize bytes: [protocol.EventSize], or
// [agent.ProgramBuffer] for an agent that takes programs. The caller closes the result, which
// returns the device to its driver.
func Open(bdf string, bodies *dma.Region, eventSize int, lg *zap.Logger) (*PCI, error) {
	d, err := virtio.Open(bdf, deviceID, virtio.Options{
		Features: virtio.FeatureIndirect, Queues: protocol.NumQueues, Log: lg,
	})
	if err != nil {
		return nil, err
	}
	memory, err := dma.New(eventBuffers*eventSize + messageSlots*slotSize)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	events, report := d.Queue(protocol.EventQueue), d.Queue(protocol.ReportQueue)
	p, err := newPCI(d, events, report, memory, bodies, eventSize, lg)
	if err != nil {
		return nil, errors.Join(err, d.Close(), memory.Close())
	}
	d.Start()
	p.events.Kick()
	return p, nil
}

func newPCI(
	d device, events, report queue, memory, bodies *dma.Region, eventSize int, lg *zap.Logger,
) (*PCI, error) {
	if lg == nil {
		lg = zap.NewNop()
	}
	p := &PCI{
		lg: lg, device: d, events: events, report: report, memory: memory, bodies: bodies,
	}
	p.readConfig()
	for i := range p.slots {
		p.slots[i] = memory.Slice(i*slotSize, slotSize)
		p.free = append(p.free, i)
	}
	for i := range p.buffers {
		p.buffers[i] = memory.Slice(messageSlots*slotSize+i*eventSize, eventSize)
		if err := p.offer(i); err != nil {
			if errors.Is(err, virtio.ErrQueueFull) && i >= 2 {
				break // a device with a short queue: two are enough
			}
			return nil, err
		}
	}
	if p.MaxBody() < memory.PageSize() {
		return nil, fmt.Errorf("set up reportq: chains of %d segments are too short for a report",
			report.MaxSegments())
	}
	report.WantInterrupts(false)
	return p, nil
}

// offer gives the device an event buffer.
func (p *PCI) offer(i int) error {
	clear(p.buffers[i].Bytes())
	if err := p.events.Add(i, nil, []dma.Slice{p.buffers[i]}); err != nil {
		return fmt.Errorf("offer event buffer: %w", err)
	}
	return nil
}

func (p *PCI) readConfig() {
	config, err := p.configNow()
	if err != nil {
		p.lg.Warn("read device configuration", zap.Error(err))
		return
	}
	p.config = config
	p.lg.Info("device configuration",
		zap.Bool("enabled", config.Flags&protocol.ConfigEnabled != 0),
		zap.Uint32("budget-us", config.BudgetUS),
		zap.Uint32("budget-entries", config.BudgetEntries))
}

func (p *PCI) configNow() (protocol.Config, error) {
	var raw [protocol.ConfigSize]byte
	n := p.device.ReadConfig(raw[:])
	return protocol.DecodeConfig(raw[:n])
}

// Introduce implements [agent.Transport].
func (p *PCI) Introduce(g agent.Guest) agent.Guest { return g }

// KnowsPrograms implements [agent.Transport].
func (p *PCI) KnowsPrograms() bool {
	config, err := p.configNow()
	return err == nil && config.Flags&protocol.ConfigPrograms != 0
}

// Receive implements [agent.Transport].
func (p *PCI) Receive(limit time.Duration) (protocol.Event, bool, error) {
	var end time.Time
	if limit > 0 {
		end = time.Now().Add(limit)
	}
	for {
		event, ok, err := p.nextEvent()
		if ok || err != nil || limit == 0 {
			return event, ok, err
		}
		left := virtio.Forever
		if limit > 0 {
			if left = time.Until(end); left <= 0 {
				return protocol.Event{}, false, nil
			}
		}
		if err := p.wait(left); err != nil {
			return protocol.Event{}, false, err
		}
	}
}

// nextEvent takes an event from the queue and makes its buffer available again. It leaves the
// kick to wait, because the event is urgent and the device has other buffers.
func (p *PCI) nextEvent() (protocol.Event, bool, error) {
	for {
		i, written, ok, err := p.events.Used()
		if !ok || err != nil {
			return protocol.Event{}, false, err
		}
		event, err := protocol.DecodeEvent(p.buffers[i].Bytes()[:written])
		if event.Type.IsProgram() {
			p.last = append(p.last[:0], p.buffers[i].Bytes()[:written]...)
		}
		if offerErr := p.offer(i); offerErr != nil {
			return protocol.Event{}, false, offerErr
		}
		if err == nil {
			return event, true, nil
		}
		p.lg.Warn("event is dropped", zap.Error(err))
	}
}

// Program implements [agent.Transport].
func (p *PCI) Program() (protocol.ProgramEvent, error) {
	return protocol.DecodeProgramEvent(p.last)
}

// wait waits for an interrupt, and handles a change of the device's configuration or status.
func (p *PCI) wait(limit time.Duration) error {
	p.events.Kick()
	changed, err := p.device.Wait(limit)
	if errors.Is(err, virtio.ErrInterrupted) {
		return fmt.Errorf("wait for the device: %w", agent.ErrInterrupted)
	}
	if err != nil {
		return err
	}
	if changed {
		if err := p.device.Healthy(); err != nil {
			return err
		}
		p.readConfig()
	}
	return nil
}

// MaxBody implements [agent.Transport].
func (p *PCI) MaxBody() int {
	// Head and tail need a segment each. In the worst case each page of the body needs one,
	// and a body that begins inside a page touches one page more than its size.
	return (p.report.MaxSegments() - 3) * p.memory.PageSize()
}

// Send implements [agent.Transport].
func (p *PCI) Send(m agent.Message) error {
	if err := p.reap(); err != nil {
		return err
	}
	for end := time.Now().Add(sendLimit); ; {
		err := p.trySend(m)
		if !errors.Is(err, virtio.ErrQueueFull) {
			return err
		}
		p.report.Kick()
		if err := p.waitForOne(end); err != nil {
			return err
		}
	}
}

func (p *PCI) trySend(m agent.Message) error {
	if len(p.free) == 0 {
		return virtio.ErrQueueFull
	}
	i := p.free[len(p.free)-1]
	slot := p.slots[i]
	out := append(p.out[:0], slot.Slice(0, copy(slot.Bytes()[:slotTail], m.Head)))
	if len(m.Body) != 0 {
		body, ok := p.bodies.Locate(m.Body)
		if !ok {
			return errors.New("send message: its body is not where the device can read it")
		}
		out = append(out, body)
	}
	if len(m.Tail) != 0 {
		out = append(out, slot.Slice(slotTail, copy(slot.Bytes()[slotTail:], m.Tail)))
	}
	if err := p.report.Add(i, out, nil); err != nil {
		return err
	}
	p.free = p.free[:len(p.free)-1]
	return nil
}

// Flush implements [agent.Transport].
func (p *PCI) Flush() { p.report.Kick() }

// Drain implements [agent.Transport].
func (p *PCI) Drain(limit time.Duration) error {
	p.report.Kick()
	for end := time.Now().Add(limit); ; {
		if err := p.reap(); err != nil {
			return err
		}
		if p.report.InFlight() == 0 {
			return nil
		}
		if err := p.waitForOne(end); err != nil {
			return err
		}
	}
}

// waitForOne waits until the device has read another message. An interrupt by the agent does
// not end it, as an exchange is short: it is left for Receive.
func (p *PCI) waitForOne(end time.Time) error {
	p.report.WantInterrupts(true)
	interrupted := false
	defer func() {
		p.report.WantInterrupts(false)
		if interrupted {
			p.device.Interrupt()
		}
	}()
	for before := len(p.free); ; {
		if err := p.reap(); err != nil {
			return err
		}
		if len(p.free) > before {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if err := p.wait(left); errors.Is(err, agent.ErrInterrupted) {
			interrupted = true
		} else if err != nil {
			return err
		}
	}
}

// reap takes back the slots of messages that the device has read.
func (p *PCI) reap() error {
	for {
		i, _, ok, err := p.report.Used()
		if !ok || err != nil {
			return err
		}
		p.free = append(p.free, i)
	}
}

// Interrupt implements [agent.Transport].
func (p *PCI) Interrupt() { p.device.Interrupt() }

// Close resets the device, returns it to its driver, and frees the memory of PCI.
func (p *PCI) Close() error { return errors.Join(p.device.Close(), p.memory.Close()) }
