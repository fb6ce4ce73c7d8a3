// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"encoding/binary"
	"testing"
	"time"
)

// The counter has what was written to the pages, and nothing else is written.
func TestPulseCounts(t *testing.T) {
	const pages = 8
	p, err := NewPulse(pages, 1000)
	if err != nil {
		t.Fatal(err)
	}
	sum := func() (n uint64) {
		for i := range pages {
			n += binary.LittleEndian.Uint64(p.mem[i*PageSize:]) - uint64(i+1)
		}
		return n
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); p.Run(stop) }()
	time.Sleep(20 * pulseTick)
	close(stop)
	<-done
	count := binary.LittleEndian.Uint64(p.counter)
	if count == 0 || count%5 != 0 || count != sum() {
		t.Errorf("the count is %d, and %d writes are in the pages", count, sum())
	}
	for _, bad := range []struct{ pages, rate int }{{0, 1000}, {8, 0}, {8, 199}} {
		if _, err := NewPulse(bad.pages, bad.rate); err == nil {
			t.Errorf("a pulse of %+v", bad)
		}
	}
}
