// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPoolChurnsWithoutMismatch(t *testing.T) {
	p, err := NewPool(PoolOptions{Pages: 8 * maxRegionPages, Workers: 2, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	var last uint64
	for range 5 {
		for p.Status().Count < last+20000 {
			if e := p.Status().Error; e != "" {
				t.Fatal(e)
			}
		}
		r := p.Verify()
		if r.Mismatched != 0 || r.Verified == 0 || r.Live != int64(r.Verified) || r.Count <= last {
			t.Fatalf("got %+v", r)
		}
		last = r.Count
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPoolFindsWhatWasLost(t *testing.T) {
	p := &Pool{}
	w := &worker{pool: p, limit: maxRegionPages, rand: rand.New(rand.NewPCG(1, 1))}
	if err := w.allocate(); err != nil {
		t.Fatal(err)
	}
	defer w.unmapAll()
	r := w.regions[0]
	want := r.pages[3]
	content{owner: want.owner, generation: want.generation + 1}.write(r.page(3))
	clear(r.page(5))
	r.page(7)[4095] ^= 0x80
	copy(r.page(9), r.page(8))

	w.verifyAll()
	report := p.Status()
	if report.Mismatched != 4 {
		t.Fatalf("found %d mismatches, want 4: %v", report.Mismatched, report.Mismatches)
	}
	for i, seen := range []string{"(stale)", "zeroes", "word 0x", "page 0x9"} {
		if m := report.Mismatches[i]; !strings.Contains(m.Seen, seen) {
			t.Errorf("%v: want it seen as %q", m, seen)
		}
	}
	w.verifyAll()
	if again := p.Status().Mismatched; again != 4 {
		t.Errorf("a loss was counted twice: %d", again)
	}
}

func TestPoolRefusesASizeItCannotKeep(t *testing.T) {
	if _, err := NewPool(PoolOptions{Pages: minWorkerPages, Workers: 2}); err == nil {
		t.Fatal("two workers share one region")
	}
}

func TestFillMakesEachPageUnique(t *testing.T) {
	b, err := Fill(3<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[[PageSize]byte]bool)
	for i := 0; i < len(b.mem); i += PageSize {
		page := [PageSize]byte(b.mem[i:])
		if seen[page] || bytes.Count(page[:], []byte{0}) > PageSize/64 {
			t.Fatalf("page %d is not unique, or has many zeroes", i/PageSize)
		}
		seen[page] = true
	}
	if err := b.Free(); err != nil {
		t.Fatal(err)
	}
}

func TestParseBuddyinfo(t *testing.T) {
	const two = "Node 0, zone      DMA      1      0      2\n" +
		"Node 0, zone   Normal      0      3      0\n"
	if pages, blocks, err := parseBuddyinfo(two); err != nil || pages != 1+8+6 || blocks != 1+2+3 {
		t.Fatalf("got %d pages in %d blocks, %v, want 15 in 6", pages, blocks, err)
	}
	for _, bad := range []string{
		"Node 0\n",
		"Node 0, zone DMA x\n",
		"Node 0, zone DMA -1\n",
		"nonsense of five words here\n",
	} {
		if got, _, err := parseBuddyinfo(bad); err == nil {
			t.Errorf("%q is taken for %d pages", bad, got)
		}
	}
}

func TestParseMeminfo(t *testing.T) {
	const text = "MemTotal:        8000 kB\nMemFree:         400 kB\nHugePages_Total:       0\n"
	if got, err := parseMeminfo(text, "MemFree"); err != nil || got != 100 {
		t.Fatalf("got %d, %v, want 100", got, err)
	}
	if _, err := parseMeminfo(text, "MemAvailable"); err == nil {
		t.Fatal("a missing field is found")
	}
}

func FuzzParseBuddyinfo(f *testing.F) {
	f.Add("Node 0, zone   Normal      0      3      0\n")
	f.Fuzz(func(t *testing.T, text string) {
		if pages, _, err := parseBuddyinfo(text); err == nil && pages < 0 {
			t.Fatalf("%q has %d pages", text, pages)
		}
	})
}

func TestDropIsOfWholeBasePages(t *testing.T) {
	w := &worker{rand: rand.New(rand.NewPCG(1, 1))}
	per := perBase()
	for n := range 3 * per {
		r := &region{pages: make([]content, n+1)}
		first, dropped := w.wholeSpan(r)
		if end := first + dropped; first%per != 0 || end > n+1 || end%per != 0 && end != n+1 {
			t.Fatalf("of %d pages, pages %d to %d are dropped", n+1, first, end)
		}
	}
}
