// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
)

// guest plays QEMU and a virtual machine. Its driver runs in a goroutine of its
// own.
type guest struct {
	t        *testing.T
	path     string
	fault    fault
	features uint64
	memory   *vhosttest.Guest
	clock    uint64 // address of the page that tick writes to

	mu     sync.Mutex // guards what follows, as QEMU's main loop does by its one thread
	fe     *vhosttest.Frontend
	driver *script
}

const acceptedByQEMU = 1<<32 | 1<<28 // VERSION_1, INDIRECT_DESC

// start connects the guest to the device, with the driver at work. It ends with
// ctx.
func (g *guest) start(ctx context.Context) error {
	var err error
	if g.memory, err = vhosttest.NewGuest(4<<20, 4<<20); err != nil {
		return err
	}
	g.clock = g.memory.Alloc(vhosttest.PageSize)
	if g.driver, err = newScript(g); err != nil {
		return err
	}
	if err := g.connect(); err != nil {
		return err
	}
	g.driver.greet = g.fault != "no hello at start" && g.fault != "has spoken to an earlier device"
	g.driver.start()
	var wg sync.WaitGroup
	wg.Go(func() { g.mainLoop(ctx) })
	wg.Go(func() { g.tick(ctx) })
	g.t.Cleanup(func() {
		g.mu.Lock()
		g.fe.Close()
		g.mu.Unlock()
		wg.Wait()
		g.driver.stop()
		g.driver.close()
		g.memory.Close()
	})
	return nil
}

// connect connects to the device as QEMU does. The driver may run already.
func (g *guest) connect() error {
	fe, err := vhosttest.Dial(g.path)
	if err != nil {
		return err
	}
	g.fe = fe
	queues := g.driver.queues()
	if err := g.fe.Realize(vhosttest.Options{Queues: queues}); err != nil {
		return err
	}
	features := g.features
	switch g.fault {
	case "accepts a reserved feature":
		features |= uint64(g.fe.Offered) & (1 << 23)
	case "does not accept VERSION_1":
		features &^= 1 << 32
	}
	if err := g.fe.Start(g.memory, features, queues...); err != nil {
		return err
	}
	return g.readConfig()
}

// readConfig reads the fields of the configuration that the driver knows, one by one.
func (g *guest) readConfig() error {
	for off := uint32(0); off < 12; off += 4 {
		p, err := g.fe.GetConfig(off, 4)
		if err != nil {
			return err
		}
		if off == 0 {
			flags := binary.LittleEndian.Uint32(p)
			g.driver.known.Store(flags&protocol.ConfigPrograms != 0)
		}
	}
	if g.fault == "reads past the configuration" {
		if _, err := g.fe.GetConfig(protocol.ConfigSize, 4); err == nil {
			return errors.New("the device has more configuration than it has")
		}
	}
	return nil
}

// mainLoop serves the backend's channel, and connects again when it is lost.
func (g *guest) mainLoop(ctx context.Context) {
	for ctx.Err() == nil {
		g.mu.Lock()
		channel := g.fe.Channel
		g.mu.Unlock()
		m, err := channel.Next(time.Minute)
		g.mu.Lock()
		if err == nil {
			err = channel.Ack(m, 0)
			m.Close()
			if err == nil {
				err = g.readConfig()
			}
		}
		if g.fault == "leaves" && (err != nil || g.driver.answered.Load() > 30) {
			g.fe.Close()
			g.mu.Unlock()
			return
		}
		if err != nil && ctx.Err() == nil {
			g.driver.stop() // QEMU's main loop may touch the queues now
			for _, q := range g.driver.queues() {
				q.Resume()
			}
			for err != nil && ctx.Err() == nil {
				g.fe.Close()
				time.Sleep(time.Millisecond)
				err = g.connect()
			}
			g.driver.start()
		}
		g.mu.Unlock()
	}
}

// tick writes to the clock page every millisecond, as a running guest writes to its
// memory. It pauses while the driver stops the guest.
func (g *guest) tick(ctx context.Context) {
	for count := byte(0); ctx.Err() == nil; count++ {
		time.Sleep(time.Millisecond)
		if !g.driver.frozen.Load() {
			g.memory.Write(g.clock, []byte{count})
		}
	}
}

// pause stops the device as QEMU does when the VM stops.
func (g *guest) pause(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.driver.stop()
	return g.fe.Stop(g.driver.queues()...)
}

func (g *guest) resume(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.startQueues()
	g.driver.start()
	return err
}

func (g *guest) startQueues() error {
	for _, q := range g.driver.queues() {
		if err := g.fe.StartRing(q); err != nil {
			return err
		}
		if err := g.fe.Enable(q, true); err != nil {
			return err
		}
	}
	return nil
}

// restart resets the device and initialises it anew.
func (g *guest) restart(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.driver.stop()
	if err := g.fe.Stop(g.driver.queues()...); err != nil {
		return err
	}
	g.driver.reset()
	g.driver.greet = g.fault != "no hello after a reset"
	if err := g.startQueues(); err != nil {
		return err
	}
	g.driver.start()
	return nil
}
