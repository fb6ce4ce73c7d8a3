// SPDX-License-Identifier: Apache-2.0

package device

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// The private vhost-user message that fetches the window (docs/window.md).
const (
	windowFeature = 48
	windowRequest = 0x4642
)

// Options configure a Device. The zero value is usable.
type Options struct {
	// Disabled starts the device switched off: it answers every request with
	// that status until SetEnabled(true).
	Disabled bool
	// HoldBudget is the longest that the driver should hold one zone's lock.
	// Zero means DefaultHoldBudget.
	HoldBudget time.Duration
	// HoldEntries is the most blocks that the driver should visit in one hold.
	// Zero means DefaultHoldEntries.
	HoldEntries uint32
	// WindowSize is the size of the hint window in bytes. Zero means
	// DefaultWindowSize.
	WindowSize int
	// Logger may be nil.
	Logger *zap.Logger
}

// Defaults of Options.
const (
	DefaultHoldBudget = time.Millisecond
	// DefaultHoldEntries is the number of list entries after which the kernel
	// cuts a walk of its own under the same lock (mm/vmstat.c,
	// pagetypeinfo_showfree_print).
	DefaultHoldEntries = 100_000
	// DefaultWindowSize has room for 4 million ranges. It is an upper bound:
	// memory is used as ranges are written.
	DefaultWindowSize = 64 << 20
)

// Device is a virtio-fbpp device. Create it with New and serve its VhostUser.
type Device struct {
	lg         *zap.Logger
	windowSize int

	mu       sync.Mutex
	config   protocol.Config
	backend  *vhostuser.Backend // nil while no frontend is connected
	window   *window.Window     // nil until the frontend fetched it
	lastAsk  uint64             // number of the newest request seen in window
	free     *freeset.Set
	eventq   *vhostuser.Queue // nil while stopped
	driver   *Driver          // nil until HELLO
	wanted   bool             // HELLO was asked for since the eventq started
	open     *exchange        // nil when no request is open
	lastDone *Exchange
	totals   [window.NumStatuses]uint64
	changed  chan struct{} // closed at the next change of the status
}

// New returns a device without a frontend.
func New(o Options) *Device {
	d := &Device{
		lg:         o.Logger,
		windowSize: o.WindowSize,
		free:       freeset.New(nil),
		changed:    make(chan struct{}),
	}
	if d.lg == nil {
		d.lg = zap.NewNop()
	}
	if d.windowSize == 0 {
		d.windowSize = DefaultWindowSize
	}
	if o.HoldBudget == 0 {
		o.HoldBudget = DefaultHoldBudget
	}
	if o.HoldEntries == 0 {
		o.HoldEntries = DefaultHoldEntries
	}
	d.config.BudgetUS = microseconds(o.HoldBudget)
	d.config.BudgetEntries = o.HoldEntries
	if !o.Disabled {
		d.config.Flags |= protocol.ConfigEnabled
	}
	return d
}

// VhostUser describes the device to a vhostuser.Server. Serve it with one
// server at a time.
func (d *Device) VhostUser() *vhostuser.Device {
	return &vhostuser.Device{
		// The library keeps both promises; a driver may do without either.
		Features:      1<<wire.FeatureRingPacked | 1<<wire.FeatureInOrder,
		NumQueues:     protocol.NumQueues,
		MaxQueueSize:  protocol.MaxQueueSize,
		ReadConfig:    d.readConfig,
		WriteConfig:   func([]byte, uint32) error { return nil }, // ignored [FBPP-CFG-1]
		Kick:          d.kick,
		Connected:     d.connected,
		Disconnected:  d.disconnected,
		QueueStarted:  d.queueStarted,
		QueueStopping: d.queueStopping,
		Reset:         d.reset,
		MemoryChanged: d.memoryChanged,
		Extensions: []vhostuser.Extension{{
			ProtocolFeature: windowFeature,
			Request:         windowRequest,
			Replies:         true,
			Handle:          d.getWindow,
		}},
	}
}

func (d *Device) readConfig(p []byte, off uint32) error {
	var space [protocol.ConfigSize]byte
	d.mu.Lock()
	d.config.Encode(space[:])
	d.mu.Unlock()
	if uint64(off)+uint64(len(p)) > protocol.ConfigSize {
		return fmt.Errorf("read config space: bytes %d to %d of %d", off, uint64(off)+uint64(len(p)), protocol.ConfigSize)
	}
	copy(p, space[off:])
	return nil
}

// SetEnabled switches the optimisation on or off, at any time, also during an
// exchange.
func (d *Device) SetEnabled(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if on == (d.config.Flags&protocol.ConfigEnabled != 0) {
		return
	}
	d.config.Flags ^= protocol.ConfigEnabled
	d.lg.Info("optimisation switched", zap.Bool("enabled", on))
	if !on {
		d.finish(window.StatusDisabled, "switched off by the operator")
	}
	if d.backend != nil {
		d.backend.ConfigChanged()
	}
	d.broadcast()
}

func (d *Device) connected(b *vhostuser.Backend) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backend = b
	d.broadcast()
}

// disconnected forgets all that belongs to the frontend and its guest: the next
// frontend may run another guest.
func (d *Device) disconnected(*vhostuser.Backend, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finish(window.StatusCancelled, "frontend disconnected")
	d.closeWindow()
	d.backend, d.eventq, d.driver = nil, nil, nil
	d.free = freeset.New(nil)
	d.broadcast()
}

func (d *Device) memoryChanged(m *vhostuser.Memory) {
	var ranges []freeset.Range
	for _, r := range m.Regions() {
		ranges = append(ranges, freeset.Range{GPA: r.Addr, Length: r.Size})
	}
	free := freeset.New(ranges)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finish(window.StatusCancelled, "guest memory table changed")
	d.free = free
}

func (d *Device) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finish(window.StatusCancelled, "device was reset")
	d.driver = nil
	d.broadcast()
}

func (d *Device) queueStarted(q *vhostuser.Queue) {
	if q.Index() != protocol.EventQueue {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.eventq, d.wanted = q, false
	if d.driver != nil {
		// It drove no queues, or reportq was stopped after eventq and had its
		// HELLO still in it: who starts eventq now may be another.
		d.driver = nil
		d.broadcast()
	}
}

func (d *Device) queueStopping(q *vhostuser.Queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.Index() == protocol.EventQueue {
		// A guest that resets the device, perhaps to boot another kernel, stops
		// the queues like one that is paused. Whoever starts them again is
		// asked for a HELLO [FBPP-INIT-2].
		d.eventq, d.driver = nil, nil
		d.broadcast()
	}
	d.finish(window.StatusNoDriver, "queues were stopped")
}

func (d *Device) kick(q *vhostuser.Queue) {
	if q.Index() == protocol.EventQueue {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.wantHello()
		return
	}
	d.drainReports(q)
}

// getWindow answers the frontend's private message with a new window.
func (d *Device) getWindow(_ []byte, files []*os.File) ([]byte, []int, error) {
	for _, f := range files {
		f.Close()
	}
	w, err := window.New(d.windowSize)
	if err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finish(window.StatusCancelled, "frontend fetched another window")
	d.closeWindow()
	d.window, d.lastAsk = w, 0
	go d.askLoop(w)

	reply := make([]byte, 16)
	binary.LittleEndian.PutUint32(reply, window.Version)
	binary.LittleEndian.PutUint64(reply[8:], uint64(w.Size()))
	return reply, w.FDs(), nil
}

// closeWindow closes the window, which also ends its askLoop. d.mu is held.
func (d *Device) closeWindow() {
	if d.window == nil {
		return
	}
	if err := d.window.Close(); err != nil {
		d.lg.Warn("closing the hint window", zap.Error(err))
	}
	d.window = nil
}

func microseconds(t time.Duration) uint32 {
	return uint32(min(max(t.Microseconds(), 0), 1<<32-1))
}
