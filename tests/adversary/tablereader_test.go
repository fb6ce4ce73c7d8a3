// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"math/rand/v2"
	"testing"
	"time"
)

// tableReaderRound is a round for a TableReader. Only few pages are allocated and freed
// all the time. So most of the table is not written, and the TableReader can report it.
func tableReaderRound(d *rand.Rand, l *TableReader) Round {
	l.Set(Look{
		StateFirst: d.IntN(2) == 0,
		Between:    time.Duration(d.Uint64N(1<<22) >> d.IntN(8)), // ns
	})
	return Round{
		Plan: Plan{
			Seed:   d.Uint64N(1 << 60),
			Used:   30 + d.IntN(50),
			Strike: 1 + d.IntN(12),
			Churn:  1 + d.Uint64N(1<<20)>>d.IntN(20),
			Pairs:  d.IntN(4) > 0,
		},
		ClearDelay: time.Duration(d.IntN(2)*d.IntN(20)) * time.Millisecond,
		ClearShift: []int{0, 6, 11}[d.IntN(3)],
	}
}

// A source that reads the guest's memory field by field, while the guest changes
// it, loses no page, as it asks QEMU what was written.
func TestTableReaderLosesNoPage(t *testing.T) {
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			m.TableReader = new(TableReader)
			g := mustBoot(t, m.Options)
			d := rand.New(rand.NewPCG(*seed, 13))
			dropped, skipped := uint64(0), int64(0)
			for range 10 + *rounds {
				r := tableReaderRound(d, m.TableReader)
				result := play(t, g, r)
				requireWhole(t, r, result)
				dropped += m.TableReader.Dropped()
				skipped += result.Migration.Hints.Skipped
			}
			t.Logf("%d pages skipped, %d blocks dropped", skipped, dropped)
			if dropped == 0 {
				t.Error("no entry of a free page was written: the test shows nothing")
			}
		})
	}
}

// If the source ignores which entries were written, pages are lost: those in use beside
// a page that was just freed. This shows that TestTableReaderLosesNoPage can fail.
func TestTableReaderThatIgnoresWritesLosesPages(t *testing.T) {
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			m.TableReader = &TableReader{IgnoreWrites: true}
			g := mustBoot(t, m.Options)
			d := rand.New(rand.NewPCG(*seed, 14))
			for n := range 30 {
				result := play(t, g, tableReaderRound(d, m.TableReader))
				if !result.Lost() {
					continue
				}
				t.Logf("round %d: %d of %d pages are lost, such as %v", n, len(result.Outside),
					result.Compared, result.Outside[0])
				return
			}
			t.Fatal("no page was lost although the reader ignored which entries were written")
		})
	}
}
