// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
)

// Registers of the common configuration structure (section 4.1.4.3).
const (
	regDeviceFeatureSelect = 0x00
	regDeviceFeature       = 0x04
	regDriverFeatureSelect = 0x08
	regDriverFeature       = 0x0c
	regNumQueues           = 0x12
	regStatus              = 0x14
	regGeneration          = 0x15
	regQueueSelect         = 0x16
	regQueueSize           = 0x18
	regQueueEnable         = 0x1c
	regQueueNotifyOff      = 0x1e
	regQueueDesc           = 0x20
	regQueueDriver         = 0x28
	regQueueDevice         = 0x30
)

// Device status bits (section 2.1).
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128
	statusGone        = 0xff // read from an unplugged device
)

// Bits of the ISR status (section 4.1.4.5).
const (
	isrQueue  = 1
	isrConfig = 2
)

// resetPatience is how long Open waits for the device to finish its reset.
const resetPatience = time.Second

// Options of Open.
type Options struct {
	Features uint64 // to accept if the device offers them; VERSION_1 is always required
	Queues   int    // number of queues to set up, from queue 0 on
	Log      *zap.Logger
}

// Device is an opened device. Its methods, except Interrupt, must not be called concurrently.
type Device struct {
	lg       *zap.Logger
	function *pciFunction
	common   registers
	notify   registers
	isr      registers
	config   registers
	features uint64
	queues   []*Queue
	memory   []*dma.Region
	masked   bool // uio_pci_generic has masked the interrupt line
	clock    int  // of openClock, -1: none
	watch    int  // of openWatch, -1: none

	lookAfter time.Duration // how long Wait waits without an event before it checks the device

	wakeMu sync.Mutex // guards wake, because any goroutine may call Interrupt during Close
	wake   int        // eventfd, -1: none
}

// Open binds the PCI device at bdf to uio_pci_generic, resets it, negotiates features and sets up
// its queues. The device uses the queues only after Start. The caller closes the result. If the
// device has another identity Open leaves it alone, and the error wraps [ErrOtherDevice].
func Open(bdf string, id ID, opts Options) (_ *Device, err error) {
	d := &Device{lg: opts.Log, wake: -1, clock: -1, watch: -1, lookAfter: lookMax}
	if d.lg == nil {
		d.lg = zap.NewNop()
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open virtio device %s: %w", bdf, err), d.Close())
		}
	}()
	if d.function, err = openFunction(realHost(), bdf, id); err != nil {
		return nil, err
	}
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	if d.clock, err = openClock(); err != nil {
		return nil, err
	}
	if d.watch, err = openWatch(d.function.path, d.function.host.device(bdf)); err != nil {
		d.lg.Warn("what others do to the device is noticed late", zap.Error(err))
	}
	multiplier, err := d.mapStructures()
	if err != nil {
		return nil, err
	}
	if err := d.reset(); err != nil {
		return nil, err
	}
	d.common.write8(regStatus, statusAcknowledge)
	d.common.write8(regStatus, statusAcknowledge|statusDriver)
	if err := d.negotiate(opts.Features); err != nil {
		return nil, err
	}
	if n := int(d.common.read16(regNumQueues)); n < opts.Queues {
		return nil, fmt.Errorf("the device has %d queues, %d are needed", n, opts.Queues)
	}
	for i := range opts.Queues {
		if err := d.setUpQueue(i, multiplier); err != nil {
			return nil, fmt.Errorf("set up queue %d: %w", i, err)
		}
	}
	return d, nil
}

func (d *Device) mapStructures() (multiplier uint32, err error) {
	caps := d.function.caps
	if d.common, err = d.function.structure(caps.common); err != nil {
		return 0, err
	}
	if d.notify, err = d.function.structure(caps.notify); err != nil {
		return 0, err
	}
	if d.isr, err = d.function.structure(caps.isr); err != nil {
		return 0, err
	}
	if caps.device.length != 0 {
		if d.config, err = d.function.structure(caps.device); err != nil {
			return 0, err
		}
	}
	return caps.notifyMultiplier, nil
}

func (d *Device) reset() error {
	d.common.write8(regStatus, 0)
	for waited := time.Duration(0); d.common.read8(regStatus) != 0; waited += time.Millisecond {
		if waited >= resetPatience {
			return fmt.Errorf("reset: status is still %#x", d.common.read8(regStatus))
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (d *Device) negotiate(known uint64) error {
	var offered uint64
	for half := range uint32(2) {
		d.common.write32(regDeviceFeatureSelect, half)
		offered |= uint64(d.common.read32(regDeviceFeature)) << (32 * half)
	}
	if offered&FeatureVersion1 == 0 {
		return fmt.Errorf("negotiate features: %#x are offered: %w", offered, errNotModern)
	}
	d.features = offered & (known | FeatureVersion1)
	for half := range uint32(2) {
		d.common.write32(regDriverFeatureSelect, half)
		d.common.write32(regDriverFeature, uint32(d.features>>(32*half)))
	}
	const status = statusAcknowledge | statusDriver | statusFeaturesOK
	d.common.write8(regStatus, status)
	if d.common.read8(regStatus)&statusFeaturesOK == 0 {
		return fmt.Errorf("negotiate features: the device offers %#x and refuses %#x",
			offered, d.features)
	}
	return nil
}

func (d *Device) setUpQueue(index int, multiplier uint32) error {
	d.common.write16(regQueueSelect, uint16(index))
	size := d.common.read16(regQueueSize)
	if size == 0 {
		return errors.New("the device has no such queue")
	}
	size = min(size, maxQueueSize)
	for size&(size-1) != 0 {
		size &= size - 1
	}
	d.common.write16(regQueueSize, size)

	offset := int(d.common.read16(regQueueNotifyOff)) * int(multiplier)
	if offset+2 > len(d.notify) {
		return fmt.Errorf("notify address %#x is outside of its structure", offset)
	}
	ring, err := d.allocate(queuePages)
	if err != nil {
		return err
	}
	var tables *dma.Region
	if d.features&FeatureIndirect != 0 {
		if tables, err = d.allocate(int(size)); err != nil {
			return err
		}
	}
	parts := [queuePages]dma.Slice{ring.Page(0), ring.Page(1), ring.Page(2)}
	notify := d.notify
	queue, err := newQueue(size, parts, tables, func() { notify.write16(offset, uint16(index)) })
	if err != nil {
		return err
	}
	d.common.write64(regQueueDesc, parts[0].Addr())
	d.common.write64(regQueueDriver, parts[1].Addr())
	d.common.write64(regQueueDevice, parts[2].Addr())
	d.common.write16(regQueueEnable, 1)
	d.queues = append(d.queues, queue)
	return nil
}

// allocate returns memory that lives until the device is closed.
func (d *Device) allocate(pages int) (*dma.Region, error) {
	region, err := dma.New(pages * os.Getpagesize())
	if err != nil {
		return nil, err
	}
	d.memory = append(d.memory, region)
	return region, nil
}

// Start sets DRIVER_OK: from now on the device uses the queues.
func (d *Device) Start() {
	d.common.write8(regStatus, statusAcknowledge|statusDriver|statusFeaturesOK|statusDriverOK)
}

// Features returns the negotiated features.
func (d *Device) Features() uint64 { return d.features }

// Queue returns the i-th queue.
func (d *Device) Queue(i int) *Queue { return d.queues[i] }

// ReadConfig fills p from the beginning of the device's configuration, consistently (section
// 2.5.1). It returns the number of bytes read, which is less than len(p) if the configuration is
// shorter.
func (d *Device) ReadConfig(p []byte) int {
	n := min(len(p), len(d.config))
	for {
		before := d.common.read8(regGeneration)
		i := 0
		for ; i+4 <= n; i += 4 {
			binary.LittleEndian.PutUint32(p[i:], d.config.read32(i))
		}
		for ; i < n; i++ {
			p[i] = d.config.read8(i)
		}
		if d.common.read8(regGeneration) == before {
			return n
		}
	}
}

// Healthy returns an error that wraps [ErrGone] or [ErrNeedsReset] if a started device cannot be
// used any more.
func (d *Device) Healthy() error {
	switch status := d.common.read8(regStatus); {
	case status == statusGone:
		return ErrGone
	case status&(statusNeedsReset|statusFailed) != 0, status&statusDriverOK == 0:
		return fmt.Errorf("status %#x: %w", status, ErrNeedsReset)
	}
	return nil
}
