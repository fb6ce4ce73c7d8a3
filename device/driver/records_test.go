// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

const frame = 1 << freeset.FrameShift

func packed(rs ...protocol.Record) []byte {
	var p []byte
	for _, r := range rs {
		p = binary.LittleEndian.AppendUint64(p, uint64(r))
	}
	return p
}

// forever has records added to their end.
func forever() error { return nil }

func TestRecordsBecomeRanges(t *testing.T) {
	memory := []freeset.Range{{GPA: 1 << 20, Length: 1 << 30}, {GPA: 4 << 30, Length: 1 << 30}}
	for _, tc := range []struct {
		name    string
		shift   uint8
		in      []protocol.Record
		outside uint64
		want    []freeset.Range
	}{
		{"none", 12, nil, 0, nil},
		{"pages of 4 KiB", 12,
			[]protocol.Record{protocol.MakeRecord(1024, 3), protocol.MakeRecord(1032, 0)}, 0,
			[]freeset.Range{{GPA: 1024 * frame, Length: 9 * frame}}},
		{"pages of 64 KiB are sixteen frames", 16, []protocol.Record{protocol.MakeRecord(1<<16, 1)}, 0,
			[]freeset.Range{{GPA: 4 << 30, Length: 128 << 10}}},
		{"memory that the device does not see", 12,
			[]protocol.Record{protocol.MakeRecord(0, 9), protocol.MakeRecord(1<<30, 2)}, 256 + 4,
			[]freeset.Range{{GPA: 1 << 20, Length: 1 << 20}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			free := freeset.New(memory)
			adder := freeset.NewAdder(free)
			outside, err := addRecords(adder, packed(tc.in...), tc.shift, false, forever)
			if err == nil {
				err = adder.Flush()
			}
			if err != nil || outside != tc.outside {
				t.Errorf("%d frames outside, %v; want %d", outside, err, tc.outside)
			}
			if diff := cmp.Diff(tc.want, slices.Collect(free.Ranges(1))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   protocol.Record
		want error
	}{
		{"unaligned", protocol.MakeRecord(257, 1), errUnaligned},
		{"of an order beyond any memory", protocol.MakeRecord(0, 63), errOrder},
		{"of more than 1 TiB", protocol.MakeRecord(0, 29), errOrder},
		{"twice", protocol.MakeRecord(300, 0), freeset.ErrOverlap},
		{"of a reserved class", protocol.MakeRecord(301, 0) | 1<<6, errClass},
	} {
		for _, before := range []int{0, batchSize - 2, batchSize - 1, batchSize, 3 * batchSize} {
			t.Run(fmt.Sprintf("%s, after %d", tc.name, before), func(t *testing.T) {
				free := freeset.New([]freeset.Range{{GPA: 0, Length: 1 << 30}})
				in := []protocol.Record{protocol.MakeRecord(300, 0)}
				for i := range before {
					in = append(in, protocol.MakeRecord(uint64(1000+2*i), 0))
				}
				_, err := addRecords(freeset.NewAdder(free),
					packed(append(in, tc.in, protocol.MakeRecord(999, 0))...), 12, false, forever)
				want := fmt.Sprintf("record %d (%v): %v", len(in), tc.in, tc.want)
				if !errors.Is(err, tc.want) || err.Error() != want {
					t.Fatalf("got %v, want %s", err, want)
				}
				if free.Frames() != uint64(len(in)) {
					t.Fatalf("%d frames, want the %d before the record", free.Frames(), len(in))
				}
			})
		}
	}
}

// The guest decides how many records there are, how large, and how often they repeat. None of
// that holds up those who wait for the source, such as a stop of the queue.
func TestRecordsAreAddedOnlyAsLongAsTheyAreWanted(t *testing.T) {
	huge := protocol.MakeRecord(0, 28) // 1 TiB: each time all of the bitmap
	for name, tc := range map[string]struct {
		in   []protocol.Record
		most uint64 // frames that are added before the second look
	}{
		"pages":       {slices.Repeat([]protocol.Record{protocol.MakeRecord(0, 0)}, 1000), 1},
		"huge blocks": {[]protocol.Record{huge, protocol.MakeRecord(1<<30, 18), huge}, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			free := freeset.New([]freeset.Range{
				{GPA: 0, Length: 4 << 30}, {GPA: 4 << 40, Length: 1 << 30},
			})
			looks, over := 0, errors.New("over")
			_, err := addRecords(freeset.NewAdder(free), packed(tc.in...), 12, true, func() error {
				if looks++; looks > 1 {
					return over
				}
				return nil
			})
			if !errors.Is(err, over) || free.Frames() == 0 || free.Frames() > tc.most {
				t.Errorf("%d frames were added, and then %v", free.Frames(), err)
			}
		})
	}
}

func TestAReportEndsWithItsRequest(t *testing.T) {
	for name, last := range map[string]bool{"by its end": true, "in the middle": false} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{})
			s.identity = &Identity{PageShift: 12, RAMBytes: 1 << 30}
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errors.New("frontend gave up"))
			f := &source.Findings{Free: freeset.New([]freeset.Range{{GPA: 0, Length: 1 << 30}})}
			x := &request{
				ctx: ctx, generation: 7, findings: f, adder: freeset.NewAdder(f.Free),
				done: make(chan error, 1),
			}
			s.open = x
			h := protocol.Header{
				Type: protocol.MessageReport, Count: 1, Generation: 7, PageShift: 12,
			}
			if last {
				h.Flags = protocol.FlagLast
			}
			p := make(portFrame, h.Size())
			h.Encode(p)
			binary.LittleEndian.PutUint64(p[protocol.HeaderSize:], uint64(protocol.MakeRecord(8, 3)))
			if last {
				trailer := protocol.Trailer{Records: 1}
				trailer.Encode(p[h.Size()-protocol.TrailerSize:])
			}
			if err := s.message(p, nil); err != nil || s.open != nil {
				t.Fatalf("the request is open: %v; %v", s.open != nil, err)
			}
			var failure *source.Failure
			if err := <-x.done; !errors.As(err, &failure) ||
				failure.Status != protocol.AnswerCancelled || f.Free.Frames() != 0 {
				t.Errorf("%d frames, and %v", f.Free.Frames(), err)
			}
		})
	}
}

func FuzzAddRecords(f *testing.F) {
	f.Add(packed(protocol.MakeRecord(0, 0), protocol.MakeRecord(1024, 10)), uint8(12), true)
	f.Add(packed(protocol.MakeRecord(1<<56-1, 63)), uint8(16), false)
	memory := []freeset.Range{{GPA: 0, Length: 1 << 20}, {GPA: 1 << 30, Length: 5<<20 + 4096}}
	f.Fuzz(func(t *testing.T, p []byte, shift uint8, overlapOK bool) {
		if shift < protocol.MinPageShift || shift > protocol.MaxPageShift {
			return
		}
		free := freeset.New(memory)
		adder := freeset.NewAdder(free)
		if _, err := addRecords(adder, p, shift, overlapOK, forever); err == nil {
			_ = adder.Flush()
		}
		var n uint64
		for r := range free.Ranges(1) {
			n += r.Length / frame
		}
		if n != free.Frames() || n > free.Capacity() {
			t.Fatalf("%d frames in ranges, %d counted, capacity %d", n, free.Frames(), free.Capacity())
		}
	})
}

// BenchmarkDecode decodes the records of a guest whose memory is all free and
// adds them to a set. All blocks have one order. They come sorted by address or
// scattered. It reports records per second, bytes of records per second, and the
// time of a whole report.
func BenchmarkDecode(b *testing.B) {
	const batch = 1 << 16 // records per measured call
	for _, gib := range []uint64{8, 1 << 10} {
		for _, order := range []uint8{0, 3, 10} {
			for _, way := range []struct {
				name   string
				stride uint64
			}{{"inorder", 1}, {"scattered", 0x9e3779b1}} {
				b.Run(fmt.Sprintf("guest=%dGiB/order=%d/%s", gib, order, way.name), func(b *testing.B) {
					free := freeset.New([]freeset.Range{{GPA: 0, Length: gib << 30}})
					p := make([]byte, batch*protocol.RecordSize)
					blocks := gib << (30 - freeset.FrameShift) >> order
					var decode time.Duration
					var records uint64
					for b.Loop() {
						free.Reset()
						adder := freeset.NewAdder(free)
						for i := uint64(0); i < blocks; {
							n := min(batch, blocks-i)
							for j := range n {
								block := (i + j) * way.stride & (blocks - 1)
								r := protocol.MakeRecord(block<<order, order)
								binary.LittleEndian.PutUint64(p[j*protocol.RecordSize:], uint64(r))
							}
							began := time.Now()
							in := p[:n*protocol.RecordSize]
							if _, err := addRecords(adder, in, 12, false, forever); err != nil {
								b.Fatal(err)
							}
							decode += time.Since(began)
							records, i = records+n, i+n
						}
						began := time.Now()
						if err := adder.Flush(); err != nil {
							b.Fatal(err)
						}
						decode += time.Since(began)
					}
					b.ReportMetric(0, "ns/op") // it would include making the records
					b.ReportMetric(float64(records)/decode.Seconds(), "records/s")
					b.ReportMetric(float64(records*protocol.RecordSize)/decode.Seconds()/1e9, "GB/s")
					b.ReportMetric(decode.Seconds()/float64(records)*float64(blocks)*1e3, "ms/report")
				})
			}
		}
	}
}
