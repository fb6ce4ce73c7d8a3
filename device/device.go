// SPDX-License-Identifier: Apache-2.0

package device

import (
	"cmp"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/history"
	"github.com/fbpp-project/fbpp/device/observer"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// Options configure a Device. The zero value is usable.
type Options struct {
	// Disabled starts the device switched off: it answers every request with
	// AnswerDisabled until SetEnabled(true).
	Disabled bool

	// HoldBudget and HoldEntries bound what the guest's driver does in one hold
	// of a zone's lock. Zero means the defaults of package driver.
	HoldBudget  time.Duration
	HoldEntries uint32

	// WindowSize is the size of the hint window in bytes. Zero means
	// DefaultWindowSize.
	WindowSize int

	// Source says which of the built-in sources the device asks. The sources in
	// More are asked after these, in order, when none of them has an answer.
	Source Policy
	More   []source.Source

	// Port says what the guest's agent may do by the serial port: see ServePort.
	Port PortPolicy

	// Cache says what a migration does with the guest's cold page cache. Drop bounds what
	// the guest drops with CacheDrop; zero fields mean DefaultDropBytes and DefaultDropTime.
	Cache CachePolicy
	Drop  source.Drop

	// Hot says what is hot, which an order has first. HotTime is how long HotWritten watches the
	// guest; zero means DefaultHotTime.
	Hot     HotPolicy
	HotTime time.Duration

	// Order finds the order in which memory is sent, where a source answers that knows
	// none. Nil means introspection.
	Order source.Orderer

	// History receives the outcome of each migration. The caller closes it. Nil
	// keeps the outcomes in memory only.
	History *history.Log

	// Logger may be nil.
	Logger *zap.Logger
}

// DefaultWindowSize has room for 4 million ranges. It is an upper bound: memory
// is used as ranges are written.
const DefaultWindowSize = 64 << 20

// Device is a virtio-fbpp device. Create it with New and serve its VhostUser.
type Device struct {
	lg         *zap.Logger
	windowSize int
	port       PortPolicy
	driver     *driver.Source
	observer   *observer.Observer
	sources    []source.Source // in the order in which they are asked
	orderer    source.Orderer  // who finds an order beside them
	drop       source.Drop
	hot        HotPolicy
	hotTime    time.Duration
	watchers   watchers
	census     census.Taker
	placing    chan struct{} // holds a token while Placement is at work
	history    *history.Log

	// freeMu guards free and orders: for the request that is being answered, and for
	// changes of the memory table. It is taken before mu.
	freeMu sync.Mutex
	free   *freeset.Set
	orders orders

	mu       sync.Mutex
	enabled  bool
	cache    CachePolicy
	backend  *vhostuser.Backend // nil while no frontend is connected
	memory   *vhostuser.Memory  // nil before the first table; retained
	window   *window.Window     // nil until the frontend fetched it
	lastAsk  uint64             // number of the newest request seen in window
	lastTold uint64             // number of the newest outcome seen in window
	open     *request           // nil when no request is open
	lastDone *Exchange
	dropped  uint64 // bytes of cache that the guest dropped since lastEnd
	lastEnd  *Migration
	totals   [protocol.NumAnswers]uint64
}

// New returns a device without a frontend.
func New(o Options) *Device {
	d := &Device{
		lg:         o.Logger,
		windowSize: o.WindowSize,
		port:       o.Port,
		free:       freeset.New(nil),
		enabled:    !o.Disabled,
		cache:      o.Cache.known(),
		drop: source.Drop{
			Bytes: cmp.Or(o.Drop.Bytes, DefaultDropBytes),
			Time:  cmp.Or(o.Drop.Time, DefaultDropTime),
		},
		hot:     o.Hot.known(),
		hotTime: cmp.Or(o.HotTime, DefaultHotTime),
		history: o.History,
		placing: make(chan struct{}, 1),
	}
	if d.lg == nil {
		d.lg = zap.NewNop()
	}
	if d.windowSize == 0 {
		d.windowSize = DefaultWindowSize
	}
	if d.history == nil {
		d.history = new(history.Log)
	}
	d.driver = driver.New(driver.Options{
		Disabled:    o.Disabled,
		HoldBudget:  o.HoldBudget,
		HoldEntries: o.HoldEntries,
		PortReports: o.Port == PortReport,
		Changed:     d.watchers.wake,
		Logger:      d.lg,
	})
	d.observer = observer.New(observer.Options{
		Background: o.Source.introspects() || o.Cache == CacheLast || o.Hot == HotKernel,
		Changed:    d.watchers.wake, Logger: d.lg,
	})
	if d.orderer = o.Order; d.orderer == nil {
		d.orderer = d.observer
	}
	d.sources = append(d.sourcesFor(o.Source), o.More...)
	return d
}

// VhostUser describes the device to a vhostuser.Server. Serve it with one
// server at a time. Package driver handles the queues and the config space. The
// device itself handles the connection, the memory table and the window.
func (d *Device) VhostUser() *vhostuser.Device {
	return &vhostuser.Device{
		// vhostuser implements both; a driver need not accept either.
		Features:      1<<wire.FeatureRingPacked | 1<<wire.FeatureInOrder,
		NumQueues:     protocol.NumQueues,
		MaxQueueSize:  protocol.MaxQueueSize,
		ReadConfig:    d.driver.ReadConfig,
		WriteConfig:   func([]byte, uint32) error { return nil }, // ignored [FBPP-CFG-1]
		Kick:          d.driver.Kick,
		Connected:     d.connected,
		Disconnected:  d.disconnected,
		QueueStarted:  d.driver.QueueStarted,
		QueueStopping: d.driver.QueueStopping,
		Reset:         d.driver.Reset,
		MemoryChanged: d.memoryChanged,
		// Introspection reads the files: through the mapping it would allocate pages
		// that the guest has never touched.
		KeepMemoryFiles: true,
		Extensions: []vhostuser.Extension{{
			ProtocolFeature: protocol.WindowProtocolFeature,
			Request:         protocol.WindowRequest,
			Replies:         true,
			Handle:          d.getWindow,
		}},
	}
}

// SetEnabled switches the optimisation on or off. Switching it off during an
// exchange ends the exchange.
func (d *Device) SetEnabled(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.driver.SetEnabled(on) {
		return
	}
	d.enabled = on
	d.lg.Info("optimisation switched", zap.Bool("enabled", on))
	if !on {
		d.finish(protocol.AnswerDisabled, "switched off by the operator")
	}
	if d.backend != nil {
		d.backend.ConfigChanged()
	}
	d.watchers.wake()
}

// ServePort serves one connection of the guest's serial port, by which an agent says that it
// cannot reach the device, and may report all the same (docs/spec.md, section 7.4). It closes
// the connection, and returns when it has ended. An error says why it was closed here.
func (d *Device) ServePort(conn net.Conn) error { return d.driver.ServePort(conn) }

func (d *Device) connected(b *vhostuser.Backend) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backend = b
	d.watchers.wake()
}

// disconnected drops all state of the frontend and its guest: the next frontend
// may run another guest.
func (d *Device) disconnected(*vhostuser.Backend, error) {
	d.driver.Disconnected()
	d.mu.Lock()
	d.finish(protocol.AnswerCancelled, "frontend disconnected")
	d.closeWindow()
	d.mu.Unlock()
	d.setMemory(nil)
	d.mu.Lock()
	d.backend, d.dropped = nil, 0
	d.mu.Unlock()
	d.watchers.wake()
}

func (d *Device) memoryChanged(m *vhostuser.Memory) {
	d.mu.Lock()
	d.finish(protocol.AnswerCancelled, "guest memory table changed")
	d.mu.Unlock()
	d.setMemory(m)
}

// setMemory waits until no source uses the guest's memory, and replaces it. nil
// means that there is no memory.
func (d *Device) setMemory(m *vhostuser.Memory) {
	if m != nil {
		m.Retain()
	}
	d.freeMu.Lock()
	defer d.freeMu.Unlock()
	memory := ranges(m)
	d.free.SetMemory(memory)
	d.orders.setMemory(memory)
	d.observer.SetMemory(m)
	d.mu.Lock()
	d.memory, m = m, d.memory
	d.mu.Unlock()
	if m != nil {
		m.Release()
	}
}

// getWindow answers the frontend's private message with a new window.
func (d *Device) getWindow(payload []byte, files []*os.File) ([]byte, []int, error) {
	for _, f := range files {
		f.Close()
	}
	features := uint64(protocol.WindowFeatureOutcome | protocol.WindowFeatureClasses |
		protocol.WindowFeatureNeeds)
	reads := slices.ContainsFunc(d.sources, func(s source.Source) bool { return s != d.driver })
	if reads || d.port == PortReport || d.hot == HotWritten {
		// A source that reads guest memory has to know which pages changed, and so has who calls
		// these hot. And a frontend with this feature asks, and shares the memory, though no
		// driver has started the device. A driver at the serial port never does.
		features |= protocol.WindowFeaturePeek
	}
	terms, err := window.Agree(payload, features)
	if err != nil {
		return nil, nil, err
	}
	w, err := window.New(d.windowSize, terms)
	if err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.finish(protocol.AnswerCancelled, "frontend fetched another window")
	d.closeWindow()
	d.window, d.lastAsk, d.lastTold = w, 0, 0
	go d.askLoop(w)
	return w.Reply(), w.FDs(), nil
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
