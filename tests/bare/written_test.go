// SPDX-License-Identifier: Apache-2.0

package bare

import "testing"

// Of a guest that nobody knows QEMU's dirty log still says what it writes. With fbppd's
// --hot=written that goes first: the guest does not wait for it when it has moved.
func TestHybridByWhatIsWritten(t *testing.T) {
	const busy, apart = 8, 1 << 20 // pages that the guest writes
	at := func(i int) uint64 { return uint64(filled + (i+1)*apart) }
	b := startFBPPD(t, "--source=none", "--hot=written", "--hot-time=2s")
	m := start(t, config(b.Socket))
	m.fill(filled, filledSize, 0x5a)
	dst := startIncoming(t, config(startFBPPD(t).Socket))
	p := &postcopy{t: t, m: m, dst: dst}
	if err := m.SetDevice(m.ctx, "hybrid", true); err != nil {
		t.Fatal(err)
	}
	p.launch()
	m.await("fbppd watches", func() bool {
		s, err := b.Control.Status(m.ctx)
		return err == nil && s.Asking
	})
	for i := range busy {
		m.fill(at(i), pageSize, byte(i))
	}
	p.awaitStatus(m, "postcopy-active")
	if err := dst.Arrive(dst.ctx); err != nil {
		t.Fatal(err)
	}
	figures, err := m.QueryMigrate(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	h := figures.Hints
	if h == nil || h.Status != "ok" || h.Source != "written" || h.Hot == nil ||
		*h.Hot < busy*pageSize || *h.Hot > filledSize/4 || h.Skipped != 0 {
		t.Fatalf("the hints are %+v", h)
	}
	before := figures.RAM.Requests
	for i := range busy {
		if got := dst.number("readb %#x", at(i)); got != uint64(i) {
			t.Errorf("page %d begins with %#x", i, got)
		}
	}
	if figures, err = m.QueryMigrate(m.ctx); err != nil || figures.RAM.Requests != before {
		t.Errorf("what is written was asked for: %d times, then %d, %v", before,
			figures.RAM.Requests, err)
	}
	p.end()
	p.requireWhole()
}
