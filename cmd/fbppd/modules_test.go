// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// QEMU adds the 256 modules of a guest of 2 TiB one by one. The guest has free
// memory in all of them. fbppd must stay below the part of its unit's limit that is for that.
func TestAGuestOfManyModulesFitsIntoTheUnit(t *testing.T) {
	const (
		modules, size = 256, 8 << 30
		// 192 MiB, and one set of pages. MemoryMax= of contrib/fbppd@.service has two more
		// for an order, and three to move the memory.
		most  = 256 << 20
		order = 10
	)
	d := mustStart(t, mustBuild(t))
	v := mustRun(t, d.vhost)
	var records []protocol.Record
	for range modules {
		at := (v.guest.End() + size - 1) / size * size
		b := must(v.guest.AddBlock(at, size))(t)
		v.check(v.fe.AddBlock(b))
		for gib := at; gib < at+size; gib += 1 << 30 { // in each chunk of the free set
			records = append(records, protocol.MakeRecord(gib>>12, order))
		}
	}
	v.send(report(v.open(), records...))
	const want = modules * size >> 30 << (12 + order)
	if status, bytes := v.answer(); status != protocol.AnswerOK || bytes != want {
		t.Fatalf("the answer is %v with %d bytes, want %d", status, bytes, uint64(want))
	}
	peak := d.peak(t)
	t.Logf("the peak is %d MiB", peak>>20)
	if peak > most {
		t.Errorf("fbppd has held %d MiB, more than %d", peak>>20, most>>20)
	}
}
