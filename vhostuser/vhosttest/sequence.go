// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// qemuProtocol are the protocol features that QEMU 10.0 wants of a generic
// device, as far as the library speaks them.
const qemuProtocol = 1<<wire.ProtocolMQ | 1<<wire.ProtocolLogSHMFD | 1<<wire.ProtocolReplyAck |
	1<<wire.ProtocolBackendReq | 1<<wire.ProtocolConfig | 1<<wire.ProtocolBackendSendFD |
	1<<wire.ProtocolResetDevice | 1<<wire.ProtocolConfigureMemSlots | 1<<wire.ProtocolStatus |
	1<<wire.ProtocolHostNotifier | 1<<wire.ProtocolSharedObject | 1<<wire.ProtocolDeviceState |
	1<<wire.ProtocolPageFault | 1<<wire.ProtocolInflightSHMFD

// Options say how Realize negotiates.
type Options struct {
	// Without are protocol features to decline.
	Without wire.ProtocolFeatures
	// Extra are protocol features to accept where they are offered, private
	// ones and those that QEMU does not know.
	Extra wire.ProtocolFeatures
	// Queues are announced by their call eventfds, as QEMU does, unless NoCall
	// is set.
	Queues []*Queue
	NoCall bool
}

// Realize sends what QEMU sends when the device is created.
func (f *Frontend) Realize(o Options) error {
	v, err := f.AskU64(wire.GetFeatures)
	if err != nil {
		return err
	}
	f.Offered = wire.Features(v)
	if f.Offered.Has(wire.FeatureProtocolFeatures) {
		if v, err = f.AskU64(wire.GetProtocolFeatures); err != nil {
			return err
		}
		f.Protocol = wire.ProtocolFeatures(v)
		agreed := f.Protocol & (qemuProtocol | o.Extra) &^ o.Without
		if err := f.Send(wire.SetProtocolFeatures, 0, wire.U64(agreed).AppendTo(nil)); err != nil {
			return err
		}
		f.Negotiated = agreed
	}
	if f.Negotiated.Has(wire.ProtocolMQ) {
		n, err := f.AskU64(wire.GetQueueNum)
		if err != nil {
			return err
		}
		if n < uint64(len(o.Queues)) {
			return fmt.Errorf("realize device: backend has %d queues, not %d", n, len(o.Queues))
		}
	}
	if f.Negotiated.Has(wire.ProtocolConfigureMemSlots) {
		n, err := f.AskU64(wire.GetMaxMemSlots)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("realize device: backend has no memory slots")
		}
	}
	if f.Negotiated.Has(wire.ProtocolBackendReq) {
		if err := f.OpenChannel(); err != nil {
			return err
		}
	}
	if err := f.Tell(wire.SetOwner, nil); err != nil {
		return err
	}
	if err := f.Barrier(); err != nil { // QEMU reads the features again
		return err
	}
	if o.NoCall {
		return nil
	}
	for _, q := range o.Queues {
		if err := f.SetCall(q); err != nil {
			return err
		}
	}
	return nil
}

// Start sends what QEMU sends when the driver is ready: features, memory, and
// the rings, which it starts at their base and enables.
func (f *Frontend) Start(g *Guest, features uint64, queues ...*Queue) error {
	if err := f.SetFeatures(features); err != nil {
		return err
	}
	if f.Negotiated.Has(wire.ProtocolStatus) {
		const acknowledgeDriverFeaturesOK = 1 | 2 | 8
		if _, err := f.AskU64(wire.GetStatus); err != nil {
			return err
		}
		if err := f.Tell(wire.SetStatus,
			wire.U64(acknowledgeDriverFeaturesOK).AppendTo(nil)); err != nil {
			return err
		}
	}
	if err := f.SetMemory(g); err != nil {
		return err
	}
	return f.StartRings(queues...)
}

// StartRings starts the rings at their base and enables them.
func (f *Frontend) StartRings(queues ...*Queue) error {
	for _, q := range queues {
		q.Negotiate(f.Features)
		if err := f.StartRing(q); err != nil {
			return err
		}
	}
	for _, q := range queues {
		if err := f.Enable(q, true); err != nil {
			return err
		}
	}
	return nil
}

// SetFeatures acknowledges features, LOG_ALL while logging is on, and
// PROTOCOL_FEATURES where it is offered.
func (f *Frontend) SetFeatures(features uint64) error {
	features |= uint64(f.Offered & (1 << wire.FeatureProtocolFeatures))
	features &^= 1 << wire.FeatureLogAll
	f.Features = wire.Features(features)
	if f.logAll {
		features |= 1 << wire.FeatureLogAll
	}
	return f.TellSync(wire.SetFeatures, wire.U64(features).AppendTo(nil))
}

// SetMemory sends the guest's memory, as slots or as a table.
func (f *Frontend) SetMemory(g *Guest) error {
	if f.Negotiated.Has(wire.ProtocolConfigureMemSlots) {
		for _, b := range g.Blocks {
			if err := f.AddBlock(b); err != nil {
				return err
			}
		}
		return nil
	}
	return f.SetTable(g)
}

// SetTable sends the guest's memory as a table.
func (f *Frontend) SetTable(g *Guest) error {
	table, fds := g.table()
	return f.TellSync(wire.SetMemTable, table.AppendTo(nil), fds...)
}

func (g *Guest) table() (table wire.MemTable, fds []int) {
	for _, b := range g.Blocks {
		table, fds = append(table, b.Region()), append(fds, b.FD)
	}
	return table, fds
}

// AddBlock adds a memory slot.
func (f *Frontend) AddBlock(b *Block) error {
	return f.TellSync(wire.AddMemReg, wire.SingleMemRegion{MemRegion: b.Region()}.AppendTo(nil), b.FD)
}

// RemoveBlock removes a memory slot.
func (f *Frontend) RemoveBlock(b *Block) error {
	return f.TellSync(wire.RemMemReg, wire.SingleMemRegion{MemRegion: b.Region()}.AppendTo(nil))
}

// StartRing sets the ring up and starts it, but does not enable it.
func (f *Frontend) StartRing(q *Queue) error {
	i := uint32(q.Index)
	if err := f.Tell(wire.SetVringNum, wire.VringState{Index: i,
		Num: uint32(q.Size)}.AppendTo(nil)); err != nil {
		return err
	}
	if err := f.Tell(wire.SetVringBase, wire.VringState{Index: i,
		Num: uint32(q.base)}.AppendTo(nil)); err != nil {
		return err
	}
	if err := f.SetAddr(q); err != nil {
		return err
	}
	if err := f.Tell(wire.SetVringKick, wire.VringFD{Index: i}.AppendTo(nil), q.Kick.FD); err != nil {
		return err
	}
	return f.SetCall(q)
}

// SetAddr sends the ring's addresses, with the flag for logging if it is on.
func (f *Frontend) SetAddr(q *Queue) error {
	flags := uint32(0)
	if f.logAll {
		flags = wire.VringFLog
	}
	a := q.Addr(flags)
	if f.iommu != nil {
		a.Desc, a.Avail, a.Used, a.Log = IOVA(q.Desc), IOVA(q.Avail), IOVA(q.UsedRing), IOVA(q.UsedRing)
	}
	return f.TellSync(wire.SetVringAddr, a.AppendTo(nil))
}

// SetCall sends the eventfd for interrupts.
func (f *Frontend) SetCall(q *Queue) error {
	return f.Tell(wire.SetVringCall, wire.VringFD{Index: uint32(q.Index)}.AppendTo(nil), q.Call.FD)
}

// Enable enables or disables a ring.
func (f *Frontend) Enable(q *Queue, on bool) error {
	n := uint32(0)
	if on {
		n = 1
	}
	return f.TellSync(wire.SetVringEnable, wire.VringState{Index: uint32(q.Index),
		Num: n}.AppendTo(nil))
}

// Stop sends what QEMU sends to stop the device, and keeps the rings' bases for
// the next start.
func (f *Frontend) Stop(queues ...*Queue) error {
	for _, q := range queues {
		if err := f.Enable(q, false); err != nil {
			return err
		}
	}
	for _, q := range queues {
		if _, err := f.StopRing(q); err != nil {
			return err
		}
	}
	return nil
}

// StopRing stops a ring and returns the index of its base; Queue.Base returns
// all of it.
func (f *Frontend) StopRing(q *Queue) (uint16, error) {
	m, err := f.Ask(wire.GetVringBase, wire.VringState{Index: uint32(q.Index)}.AppendTo(nil))
	if err != nil {
		return 0, err
	}
	defer m.Close()
	s, err := wire.DecodeVringState(m.Payload)
	if err == nil && s.Index != uint32(q.Index) {
		err = fmt.Errorf("stop ring: reply is about ring %d", s.Index)
	}
	q.base = s.Num
	return uint16(s.Num), err
}

// GetConfig reads config space.
func (f *Frontend) GetConfig(off, n uint32) ([]byte, error) {
	m, err := f.Ask(wire.GetConfig, wire.Config{Offset: off, Data: make([]byte, n)}.AppendTo(nil))
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if m.Size == 0 {
		return nil, &Refused{Request: wire.GetConfig, Status: 1}
	}
	c, err := wire.DecodeConfig(m.Payload)
	if err != nil {
		return nil, err
	}
	if c.Offset != off || uint32(len(c.Data)) != n {
		return nil, fmt.Errorf("read config: %d bytes at %d were asked, reply is %v", n, off, c)
	}
	return append([]byte(nil), c.Data...), nil
}

// SetConfig writes config space.
func (f *Frontend) SetConfig(off uint32, p []byte) error {
	return f.TellSync(wire.SetConfig, wire.Config{Offset: off, Data: p}.AppendTo(nil))
}

// SetErr sends the eventfd that tells of a broken ring.
func (f *Frontend) SetErr(q *Queue, e *Event) error {
	return f.Tell(wire.SetVringErr, wire.VringFD{Index: uint32(q.Index)}.AppendTo(nil), e.FD)
}
