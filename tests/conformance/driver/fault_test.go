// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"encoding/binary"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// spoil encodes a report with the fault of the script.
func (s *script) spoil(
	h protocol.Header, records []protocol.Record, trailer *protocol.Trailer,
) []byte {
	first := s.sent == 2 // after STARTED
	last := trailer != nil
	switch s.fault {
	case "never says that a report is the last":
		if last {
			h.Flags &^= protocol.FlagLast
			trailer = nil
		}
	case "says twice that a report is the last":
		if last {
			s.send(message(h, records, trailer))
		}
	case "reports memory in use":
		if first {
			for _, at := range s.buffers {
				records[0] = protocol.MakeRecord(at>>12, 0)
			}
		}
	case "reports unaligned blocks":
		records[0] = protocol.MakeRecord(records[0].PFN()+1, 1)
	case "reports blocks of another class":
		records[0] |= 1 << 6
	case "reports what is no memory":
		records[0] = protocol.MakeRecord(1<<40, 0)
	case "reports memory past its end":
		records[0] = protocol.MakeRecord(firstFree&^(1<<scriptOrder-1)+1<<scriptOrder, scriptOrder)
	case "reports an order that no address has":
		records[0] = protocol.MakeRecord(0, protocol.MaxOrder)
	case "reports blocks twice":
		if last && h.Flags&protocol.FlagResumed == 0 {
			records[0] = protocol.MakeRecord(firstFree+17, 0)
		}
	case "changes the page shift":
		if last {
			h.PageShift = 13
			for i := range records {
				records[i] = protocol.MakeRecord(records[i].PFN()/2, blockOrder-1)
			}
		}
	case "fails with records":
		if last {
			h.Status = protocol.StatusFailed
		}
	case "reports too much":
		if first {
			h.Flags |= protocol.FlagResumed
			for range 5000 {
				records = append(records, protocol.MakeRecord(firstFree, 0))
			}
		}
		if last {
			trailer.Records += 5000
		}
	case "counts wrongly":
		if last {
			trailer.Records++
		}
	case "drops cache unasked":
		if last && !s.request.DropsCache() {
			trailer.Dropped = 1
		}
	case "spends time on cache unasked":
		if last && !s.request.DropsCache() {
			trailer.DropUS = 1
		}
	case "drops more cache than it may":
		if last && s.request.DropsCache() {
			trailer.Dropped = 256*s.request.DropMiB + 1
		}
	case "keeps half of the generation":
		h.Generation &= 0xffffffff
	case "has large pages":
		for i := range records {
			records[i] = protocol.MakeRecord(records[i].PFN()>>4, blockOrder-4)
		}
		if first { // more records than twice the large pages, fewer than twice the small ones
			h.Flags |= protocol.FlagResumed
			for range 500 {
				records = append(records, protocol.MakeRecord(firstFree>>4, 0))
			}
		}
		if last {
			trailer.Records += 500
		}
	case "sets unknown flags":
		h.Flags |= 0x100
	case "holds its lock while it waits":
		if last {
			trailer.HoldMaxUS = 1 << 30
		}
	}
	p := message(h, records, trailer)
	switch s.fault {
	case "sends more than its header says":
		p = append(p, 0, 0, 0, 0)
	case "sends less than its header says":
		p = p[:len(p)-1]
	case "sends unknown messages":
		binary.LittleEndian.PutUint16(p, 9)
	}
	return p
}
