// SPDX-License-Identifier: Apache-2.0

package protocol

import "fmt"

// RecordSize is the length of one record in bytes.
const RecordSize = 8

// MaxPortRecords is the largest number of records in one REPORT over the serial port: the
// message then has at most 32 KiB, which Linux's driver of the port sends in one piece
// [FBPP-PORT-6].
const MaxPortRecords = (32<<10 - HeaderSize - TrailerSize) / RecordSize

// MaxOrder is the highest order that a record can express.
const MaxOrder = 63

// Record is one free block of physical pages (section 7.3): its first page
// frame number in bits 63 to 8, its class in bits 7 and 6, its order in bits 5
// to 0.
type Record uint64

// ClassFree is the only class that is defined: the block was free.
const ClassFree = 0

// MakeRecord packs a free block. pfn is truncated to 56 bits, order to 6 bits.
func MakeRecord(pfn uint64, order uint8) Record {
	return Record(pfn<<8 | uint64(order&MaxOrder))
}

// PFN returns the number of the block's first page, in pages of the guest.
func (r Record) PFN() uint64 { return uint64(r) >> 8 }

// Order returns the order: the block has 1<<order pages.
func (r Record) Order() uint8 { return uint8(r) & MaxOrder }

// Class returns the class of memory.
func (r Record) Class() uint8 { return uint8(r) >> 6 & 3 }

// String implements fmt.Stringer.
func (r Record) String() string {
	return fmt.Sprintf("pfn=%#x order=%d class=%d", r.PFN(), r.Order(), r.Class())
}
