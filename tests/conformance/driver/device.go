// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// futureFeature is a reserved feature bit. A driver of this version must not
// accept it even where a later device offers it.
const futureFeature = 23

// pace is how the device treats messages.
type pace int

const (
	paceAtOnce pace = iota // they are read and used as they come
	paceKeep               // they are read, and kept unused until release
	paceIgnore             // they are left in the ring until release
)

// device is the free page device that the suite gives to the driver. It serves one
// frontend at a time. The scenarios decide what it does and when. Its methods may be
// called from any goroutine.
type device struct {
	mu       sync.Mutex
	changed  chan struct{} // closed when something below changes
	judge    judge
	config   protocol.Config
	reading  uint32        // flags that the frontend has read, before the fields that follow
	told     uint32        // flags of the configuration that the frontend has read last
	offered  uint64        // features of rings, beyond those that the library offers
	features wire.Features // what the driver accepted
	backend  *vhostuser.Backend
	memory   *vhostuser.Memory // retained; nil before the first
	window   *window.Window    // nil while the frontend has none
	eventq   *vhostuser.Queue  // nil while it does not run
	reportq  *vhostuser.Queue
	starts   int // how often eventq was started
	buffers  []*buffer
	pace     pace
	kept     []*message
	arrived  int  // how many messages were read
	restarts bool // the driver is being restarted: the queues stop once because of it
}

func newDevice(now func() time.Time, offered uint64) *device {
	return &device{
		offered: offered,
		changed: make(chan struct{}),
		judge:   newJudge(now),
		config: protocol.Config{
			Flags:    protocol.ConfigEnabled | protocol.ConfigPrograms,
			BudgetUS: 1000, BudgetEntries: 100_000,
		},
	}
}

func (d *device) vhostUser() *vhostuser.Device {
	return &vhostuser.Device{
		Features:      d.offered | 1<<futureFeature,
		NumQueues:     protocol.NumQueues,
		MaxQueueSize:  protocol.MaxQueueSize,
		ReadConfig:    d.readConfig,
		WriteConfig:   func([]byte, uint32) error { return nil }, // ignored [FBPP-CFG-1]
		Kick:          d.kick,
		Connected:     d.connected,
		Disconnected:  d.disconnected,
		FeaturesAcked: d.featuresAcked,
		QueueStarted:  d.queueStarted,
		QueueStopping: d.queueStopping,
		Reset:         d.reset,
		MemoryChanged: d.memoryChanged,
		Extensions:    []vhostuser.Extension{d.windowExtension()},
	}
}

// broadcast wakes all goroutines in await. d.mu is held.
func (d *device) broadcast() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until what returns true. It calls what with d.mu held.
func (d *device) await(ctx context.Context, what func() bool) error {
	for {
		d.mu.Lock()
		done, changed := what(), d.changed
		d.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// locked calls f with d.mu held.
func (d *device) locked(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// readConfig sets reserved bits and bytes, as a device of a later version may. A
// driver has to ignore them.
func (d *device) readConfig(p []byte, off uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if end := uint64(off) + uint64(len(p)); end > protocol.ConfigSize {
		d.judge.broke(ruleConfig, "bytes %d to %d of the configuration were read, it has %d",
			off, end, protocol.ConfigSize)
		return fmt.Errorf("read configuration: bytes %d to %d of %d", off, end, protocol.ConfigSize)
	}
	if off != 0 || len(p) != protocol.ConfigSize {
		d.judge.saw(ruleConfig)
	} else {
		d.judge.skip("the frontend reads all of the configuration,"+
			" and answers the driver from its copy", ruleConfig)
	}
	if off == 0 {
		d.reading = d.config.Flags
	}
	if off+uint32(len(p)) >= 12 { // with the last field that a driver knows
		d.told = d.reading
		d.broadcast()
	}
	var space [protocol.ConfigSize]byte
	d.config.Encode(space[:])
	for i := protocol.ConfigSize - 20; i < len(space); i++ {
		space[i] = 0xa5
	}
	space[3] |= 0x80 // of the flags
	copy(p, space[off:])
	return nil
}

// setConfig changes the configuration, and tells the driver also when nothing
// has changed.
func (d *device) setConfig(change func(*protocol.Config)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.config)
	d.judge.note("device: configuration is %+v", d.config)
	if d.backend != nil {
		d.backend.ConfigChanged()
	}
}

func (d *device) connected(b *vhostuser.Backend) {
	d.locked(func() {
		d.backend = b
		d.judge.note("frontend: connected")
		d.broadcast()
	})
}

func (d *device) disconnected(_ *vhostuser.Backend, err error) {
	d.locked(func() {
		d.backend = nil
		err = errors.Join(err, d.closeWindow())
		d.judge.note("frontend: disconnected: %v", err)
		d.broadcast()
	})
}

func (d *device) featuresAcked(features uint64) {
	d.locked(func() { d.features = wire.Features(features) })
}

func (d *device) queueStarted(q *vhostuser.Queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judge.note("frontend: queue %d runs, features %v", q.Index(), d.features)
	if q.Index() == protocol.EventQueue {
		d.eventq = q
		d.starts++
		d.judge.saw(ruleVersion, ruleFeatures)
		if !d.features.Has(wire.FeatureVersion1) {
			d.judge.broke(ruleVersion, "the queues run with the features %v", d.features)
		}
		if reserved := d.features & (1<<24 - 1); reserved != 0 {
			d.judge.broke(ruleFeatures, "of the reserved bits, %#x were accepted", uint64(reserved))
		}
	} else {
		d.reportq = q
		d.judge.meets(d.usedBefore(q))
	}
	d.broadcast()
}

// usedBefore says whether a device has taken anything from a ring since the driver
// initialised it.
func (d *device) usedBefore(q *vhostuser.Queue) bool {
	if d.features.Has(wire.FeatureRingPacked) {
		return q.Base() != 1<<31|1<<15 // both wrap counters are 1
	}
	return q.Base() != 0
}

// queueStopping gives all chains of a queue back to the driver.
func (d *device) queueStopping(q *vhostuser.Queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judge.note("frontend: queue %d stops", q.Index())
	if q.Index() == protocol.EventQueue {
		d.eventq = nil
		d.returnBuffers(q)
	} else {
		d.useKept(q, nil)
		d.reportq = nil
	}
	if d.restarts && d.eventq == nil && d.reportq == nil {
		d.restarts = false
		d.judge.helloDue, d.judge.driver = ruleAgain, nil
	}
	d.broadcast()
}

func (d *device) reset() {
	d.locked(func() {
		d.judge.note("frontend: reset")
		d.judge.helloDue, d.judge.driver = ruleAgain, nil
	})
}

func (d *device) memoryChanged(m *vhostuser.Memory) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.Retain()
	if d.memory != nil {
		d.memory.Release()
	}
	d.memory, d.judge.memory = m, m.Regions()
}

// close releases guest memory. The device must not be served any more.
func (d *device) close() {
	d.locked(func() {
		if d.memory != nil {
			d.memory.Release()
			d.memory = nil
		}
	})
}

func (d *device) kick(q *vhostuser.Queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.Index() == protocol.ReportQueue {
		d.readMessages(q)
	}
	d.broadcast()
}

// readMessages reads the messages that the driver has made available, and judges
// them in this order. d.mu is held.
func (d *device) readMessages(q *vhostuser.Queue) {
	for d.pace != paceIgnore {
		c, err := q.Pop()
		if err != nil {
			d.queueError(q, err)
		}
		if c == nil || err != nil {
			return
		}
		d.judge.saw(ruleQueue)
		d.arrived++
		m := &message{chain: c, header: d.judge.read(c)}
		if m.header.Type == protocol.MessageHello {
			d.judge.programs.barred = d.config.Flags&protocol.ConfigPrograms == 0
		}
		if d.pace == paceKeep {
			if m.sum, err = sumOf(c.Readable()); err != nil {
				d.judge.note("device: read message: %v", err)
			}
			d.kept = append(d.kept, m)
			continue
		}
		d.use(q, m)
		d.interrupt(q)
	}
}

// use gives a message back. d.mu is held.
func (d *device) use(q *vhostuser.Queue, m *message) {
	if err := q.Push(m.chain, 0); err != nil {
		// The message is read again when the queue is started again.
		if r := d.judge.requests[m.header.Generation]; r != nil {
			r.lost = true
		}
		d.queueError(q, err)
	}
}

// useKept uses the messages that were kept, and checks that the driver has not
// changed them since they were read. arrange, unless nil, puts them in order first.
func (d *device) useKept(q *vhostuser.Queue, arrange func([]*message)) {
	if arrange != nil {
		arrange(d.kept)
	}
	for _, m := range d.kept {
		d.judge.saw(ruleStable)
		if sum, err := sumOf(m.chain.Readable()); err == nil && sum != m.sum {
			d.judge.broke(ruleStable,
				"the message that was read as %v, and not used yet, has changed", m.header)
		}
		d.use(q, m)
	}
	d.kept = nil
}

// setPace changes how messages are treated. Those that were kept are used now.
func (d *device) setPace(p pace, arrange func([]*message)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pace = p
	if q := d.reportq; q != nil {
		d.useKept(q, arrange)
		d.interrupt(q)
		d.readMessages(q)
	}
	d.broadcast()
}

// interrupt interrupts the driver, also when nothing was used. d.mu is held.
func (d *device) interrupt(q *vhostuser.Queue) {
	if q == nil {
		return
	}
	if err := q.Notify(); err != nil {
		d.queueError(q, err)
	}
}

// queueError records an error of a ring as a breach of the rule about rings. A ring
// that was only stopped is no breach. d.mu is held.
func (d *device) queueError(q *vhostuser.Queue, err error) {
	if !errors.Is(err, vhostuser.ErrQueueStopped) {
		d.judge.broke(ruleQueue, "%v", err)
		if q == d.eventq {
			d.eventq = nil
		}
	}
}
