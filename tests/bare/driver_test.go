// SPDX-License-Identifier: Apache-2.0

package bare

import "encoding/binary"

// The device's queues (docs/spec.md).
const (
	queues     = 2
	eventQueue = 0
	eventSize  = 32
)

// Where the device is: a free PCI slot, and an address in the PCI hole.
const (
	slot = 0x10
	bar  = 0xe0000000
)

// Registers of a virtio device on PCI (VIRTIO 1.2, 4.1.4.3).
const (
	driverFeatureSelect = 0x08
	driverFeature       = 0x0c
	deviceStatus        = 0x14
	queueSelect         = 0x16
	queueSize           = 0x18
	queueEnable         = 0x1c
	queueDesc           = 0x20
	queueDriver         = 0x28
	queueDevice         = 0x30
)

// Bits of the device's status.
const (
	acknowledged = 1
	driver       = 2
	driverOK     = 4
	featuresOK   = 8
)

const (
	descriptors = 8      // of each queue
	queueBytes  = 0x4000 // of memory for each queue and its buffers
)

// config selects a word of the device's PCI configuration space.
func (q *qtest) config(offset uint32) {
	q.do("outl 0xcf8 %#x", 0x80000000|slot<<11|offset)
}

// mapDevice maps the device's registers, enables the device, and returns the address
// of its common configuration.
func (q *qtest) mapDevice() (common uint64) {
	q.t.Helper()
	for i, half := range []uint32{bar, 0} {
		q.config(0x20 + 4*uint32(i)) // BAR 4
		q.do("outl 0xcfc %#x", half)
	}
	q.config(0x04)
	q.do("outw 0xcfc 0x6") // memory, and bus mastering
	q.config(0x34)
	for at := uint32(q.number("inb 0xcfc")); at != 0; {
		q.config(at)
		head := q.number("inl 0xcfc")
		if head&0xff == 9 && head>>24 == 1 { // vendor-specific, and VIRTIO_PCI_CAP_COMMON_CFG
			q.config(at + 8)
			return bar + q.number("inl 0xcfc")
		}
		at = uint32(head >> 8 & 0xff)
	}
	q.t.Fatal("there is no virtio device")
	return 0
}

// startDriver starts the device with its queues in memory at base, and fills the
// event queue with buffers.
func (q *qtest) startDriver(base uint64) {
	q.t.Helper()
	common := q.mapDevice()
	q.do("writeb %#x 0", common+deviceStatus)
	status := acknowledged | driver
	q.do("writeb %#x %#x", common+deviceStatus, status)
	q.do("writel %#x 1", common+driverFeatureSelect)
	q.do("writel %#x 1", common+driverFeature) // VIRTIO_F_VERSION_1
	status |= featuresOK
	q.do("writeb %#x %#x", common+deviceStatus, status)
	for i := range uint64(queues) {
		at := base + i*queueBytes
		q.fill(at, queueBytes, 0)
		q.do("writew %#x %#x", common+queueSelect, i)
		q.do("writew %#x %#x", common+queueSize, descriptors)
		for part, register := range []uint64{queueDesc, queueDriver, queueDevice} {
			where := at + uint64(part)*0x1000
			q.do("writel %#x %#x", common+register, uint32(where))
			q.do("writel %#x %#x", common+register+4, where>>32)
		}
		if i == eventQueue {
			q.postEvents(at)
		}
		q.do("writew %#x 1", common+queueEnable)
	}
	q.do("writeb %#x %#x", common+deviceStatus, status|driverOK)
}

// postEvents makes all descriptors of a queue buffers for events.
func (q *qtest) postEvents(at uint64) {
	q.t.Helper()
	var table, avail []byte
	avail = binary.LittleEndian.AppendUint16(avail, 0)
	avail = binary.LittleEndian.AppendUint16(avail, descriptors)
	for i := range descriptors {
		table = binary.LittleEndian.AppendUint64(table, at+0x3000+uint64(i)*eventSize)
		table = binary.LittleEndian.AppendUint32(table, eventSize)
		table = binary.LittleEndian.AppendUint32(table, 2) // the device writes it
		avail = binary.LittleEndian.AppendUint16(avail, uint16(i))
	}
	q.write(at, table)
	q.write(at+0x1000, avail)
}

// stopDriver resets the device.
func (q *qtest) stopDriver() {
	q.t.Helper()
	q.do("writeb %#x 0", q.mapDevice()+deviceStatus)
}
