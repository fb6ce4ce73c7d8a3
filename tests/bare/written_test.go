// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"testing"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// Of a guest that nobody knows QEMU's dirty log still says what it writes. With fbppd's
// --hot=written that goes first: the guest does not wait for it when it has moved. It was written
// before it was sent, and so does not count as written again.
func TestHybridByWhatIsWritten(t *testing.T) {
	for name, memory := range map[string][]string{
		"memfd": nil,
		// With these vhost tells of memory that is no RAM, too.
		"huge pages": {"memory-backend-memfd,id=ram,size=64M,share=on,hugetlb=on,hugetlbsize=2M"},
	} {
		t.Run(name, func(t *testing.T) { testHybridByWhatIsWritten(t, memory) })
	}
}

func testHybridByWhatIsWritten(t *testing.T, memory []string) {
	const busy, apart = 64, 128 << 10 // pages that the guest writes: 256 KiB of 8 MiB
	at := func(i int) uint64 { return uint64(filled + i*apart) }
	if memory != nil {
		lab.ReserveHugePages(t, 64)
	}
	b := startFBPPD(t, "--source=none", "--hot=written", "--hot-time=3s")
	here, there := config(b.Socket), config(startFBPPD(t).Socket)
	here.Memory, there.Memory = memory, memory
	m := start(t, here)
	m.fill(filled, filledSize, 0x5a)
	p := &postcopy{t: t, m: m, dst: startIncoming(t, there)}
	if err := m.SetDevice(m.ctx, "hybrid", true); err != nil {
		t.Fatal(err)
	}
	p.launch()
	// After the switch only what is asked for comes soon.
	m.execute("migrate-set-parameters", map[string]any{
		"max-bandwidth": 8 * slowly, "max-postcopy-bandwidth": pageSize,
	})
	m.await("fbppd watches", func() bool {
		s, err := b.Control.Status(m.ctx)
		return err == nil && s.Asking
	})
	for i := range busy {
		m.fill(at(i), pageSize, byte(i+1))
	}
	p.awaitStatus(m, "postcopy-active")
	if err := p.dst.Arrive(p.dst.ctx); err != nil {
		t.Fatal(err)
	}
	figures, err := m.QueryMigrate(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	h := figures.Hints
	if h == nil || h.Status != "ok" || h.Source != "written" || h.Hot == nil ||
		*h.Hot < busy*pageSize || *h.Hot > filledSize/2 || h.Skipped != 0 {
		t.Fatalf("the hints are %+v", h)
	}
	before := figures.RAM.Requests
	for i := range busy {
		if got := p.dst.number("readb %#x", at(i)); got != uint64(i+1) {
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
