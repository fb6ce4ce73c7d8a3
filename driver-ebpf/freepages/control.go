// SPDX-License-Identifier: Apache-2.0

package freepages

import "encoding/binary"

// Layout of struct control in bpf/walk.bpf.c. The program accesses it only during a read of
// the file by the thread that uses it here. So plain loads and stores are enough.
const (
	controlTask       = 0  // the only task whose reads are walked
	controlRequest    = 8  // number of the snapshot: progress of another one is void
	controlBudgetNS   = 16 // longest hold
	controlBudget     = 24 // most blocks in one hold
	controlArmed      = 28 // 0: walk nothing
	controlCount      = 32 // records in the buffer
	controlZones      = 36 // zones printed with the program there, walked or not
	controlUnfinished = 40 // zones whose hold ended before their lists did
	controlBroken     = 44 // zones that were not found or did not look as they should
	controlHolds      = 48 // holds that walked
	controlRestarts   = 52 // lists begun again: the remembered block was gone
	controlWalkNS     = 56 // time in all holds
	controlHoldMaxNS  = 64 // longest hold
	controlUnlocked   = 72 // zones printed without the lock: nothing was walked
	controlCPU        = 76 // the CPU whose own lists are walked after the zone's, plus 1; 0: none
	controlHeld       = 80 // pages found on lists of CPUs
	controlUnsettled  = 84 // lists of a CPU that were left out: they did not fit what it counts
	controlLocked     = 88 // zones for which the program has checked that the lock is held
	controlFinished   = 92 // zones walked to their end in this read, and not before
	controlSize       = 96
)

// control is struct control in the map's memory.
type control []byte

// counts are the numbers of free blocks that the allocator itself counts, read in the hold in
// which a zone was last walked: struct counts in bpf/walk.bpf.c. They are by zone, in the
// order in which zones are printed, and then by order.
type counts []byte

const maxOrders = 16 // MAX_ORDERS of bpf/walk.bpf.c

func (c counts) zones() int { return len(c) / (maxOrders * 8) }

func (c counts) free(zone, order int) uint64 {
	return binary.NativeEndian.Uint64(c[(zone*maxOrders+order)*8:])
}

// sum returns the number of free blocks in all zones and orders.
func (c counts) sum() (blocks uint64) {
	for i := 0; i < len(c); i += 8 {
		blocks += binary.NativeEndian.Uint64(c[i:])
	}
	return blocks
}

func (c control) u32(field int) uint32       { return binary.NativeEndian.Uint32(c[field:]) }
func (c control) u64(field int) uint64       { return binary.NativeEndian.Uint64(c[field:]) }
func (c control) setU32(field int, v uint32) { binary.NativeEndian.PutUint32(c[field:], v) }
func (c control) setU64(field int, v uint64) { binary.NativeEndian.PutUint64(c[field:], v) }
