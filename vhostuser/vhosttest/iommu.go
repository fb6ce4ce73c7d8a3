// SPDX-License-Identifier: Apache-2.0

package vhosttest

import (
	"sync"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// iovaBase is where the I/O virtual address of guest address 0 is, for what is
// not mapped otherwise.
const iovaBase = 1 << 40

// IOVA returns the I/O virtual address by which the device reaches the guest
// address, as [IOMMU.MapGuest] maps it.
func IOVA(addr uint64) uint64 { return iovaBase + addr }

// IOMMU translates addresses for a device that negotiated ACCESS_PLATFORM. It
// answers the backend's misses, a page each, as QEMU does: the translation goes
// out before the answer.
type IOMMU struct {
	// Silent makes the IOMMU answer a miss for which it has nothing as if
	// nothing was wrong. The specification allows that.
	Silent bool

	f *Frontend
	g *Guest

	mu     sync.Mutex
	pages  map[uint64]page // by I/O virtual page
	misses int
	faults []wire.IOTLB

	hangAt  uint64
	hang    <-chan struct{}
	hanging bool
}

type page struct {
	addr uint64 // in the guest
	perm uint8
}

// StartIOMMU puts the device behind an IOMMU with nothing mapped. It takes the
// backend channel over, and must precede Start.
func (f *Frontend) StartIOMMU(g *Guest) *IOMMU {
	m := &IOMMU{f: f, g: g, pages: make(map[uint64]page)}
	f.iommu = m
	f.Channel.Serve(m.handle)
	return m
}

func (m *IOMMU) handle(msg *wire.Message) (status uint64) {
	if wire.BackendRequest(msg.Request) != wire.BackendIOTLBMsg {
		return 0
	}
	v, err := wire.DecodeIOTLB(msg.Payload)
	if err != nil {
		return 1
	}
	m.mu.Lock()
	p, ok := m.pages[v.IOVA/PageSize]
	switch v.Type {
	case wire.IOTLBMiss:
		m.misses++
		if m.hang != nil && v.IOVA == m.hangAt {
			m.hanging = true
			m.mu.Unlock()
			<-m.hang
			m.mu.Lock()
		}
	case wire.IOTLBAccessFail:
		m.faults = append(m.faults, v)
	}
	m.mu.Unlock()
	switch {
	case v.Type != wire.IOTLBMiss:
	case ok && p.perm&v.Perm == v.Perm:
		err = m.Update(v.IOVA&^(PageSize-1), m.g.User(p.addr), PageSize, p.perm)
	case !m.Silent:
		return 1
	}
	if err != nil {
		return 1
	}
	return 0
}

// Update sends a translation to an address of this process.
func (m *IOMMU) Update(iova, user, size uint64, perm uint8) error {
	return m.send(wire.IOTLB{IOVA: iova, Size: size, UserAddr: user, Perm: perm,
		Type: wire.IOTLBUpdate})
}

func (m *IOMMU) send(v wire.IOTLB) error {
	r, err := m.f.Ask(wire.IOTLBMsg, v.AppendTo(nil))
	if err != nil {
		return err
	}
	defer r.Close()
	status, err := wire.DecodeU64(r.Payload)
	if err == nil && status != 0 {
		err = &Refused{Request: wire.IOTLBMsg, Status: status}
	}
	return err
}

// Map maps size bytes, whole pages, at a guest address. The backend learns of
// it when it asks.
func (m *IOMMU) Map(iova, addr, size uint64, perm uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for off := uint64(0); off < size; off += PageSize {
		m.pages[(iova+off)/PageSize] = page{addr + off, perm}
	}
}

// MapGuest maps all of the guest's memory by IOVA.
func (m *IOMMU) MapGuest() {
	for _, b := range m.g.Blocks {
		m.Map(IOVA(b.Addr), b.Addr, b.Size(), wire.IOTLBRead|wire.IOTLBWrite)
	}
}

// Unmap takes pages back, and returns when the backend has given them up.
func (m *IOMMU) Unmap(iova, size uint64) error {
	m.mu.Lock()
	for off := uint64(0); off < size; off += PageSize {
		delete(m.pages, (iova+off)/PageSize)
	}
	m.mu.Unlock()
	return m.Invalidate(iova, size)
}

// Invalidate makes the backend forget translations that stay valid.
func (m *IOMMU) Invalidate(iova, size uint64) error {
	return m.send(wire.IOTLB{IOVA: iova, Size: size, Type: wire.IOTLBInvalidate})
}

// Hang makes the answer to a miss at iova, the address of a page, wait until
// release is closed.
func (m *IOMMU) Hang(iova uint64, release <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hangAt, m.hang = iova, release
}

// Hanging says whether there was such a miss.
func (m *IOMMU) Hanging() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hanging
}

// Misses returns how often the backend asked, and the failures that it
// reported.
func (m *IOMMU) Misses() (n int, faults []wire.IOTLB) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.misses, append([]wire.IOTLB(nil), m.faults...)
}
