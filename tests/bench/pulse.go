// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/fbpp-project/fbpp/tests/introspect/qemuram"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// The work by which a migration is felt: 64 MiB, and about a page in each millisecond.
const (
	pulsePages = 16384
	pulseRate  = 1000

	pulseStep   = 100 * time.Millisecond
	pulseSample = 5 * time.Millisecond
	pulseAround = time.Second // is watched before the command, and after the end
)

// beat is how much the guest had done at a time, which counts from the migration's command.
type beat struct {
	at    time.Duration
	count uint64
}

// pulseRecord is how the guest's work went. Steps are of 100 ms each.
type pulseRecord struct {
	Before    []uint64 `json:"before"`     // what was done in the steps before the command
	Steps     []uint64 `json:"steps"`      // and in those after it
	PauseMS   int64    `json:"pause_ms"`   // the longest time without any work
	Achieved  float64  `json:"achieved"`   // share of the pace before, until all memory was there
	EndMS     int64    `json:"end_ms"`     // when that was
	RunsAfter int64    `json:"runs_after"` // ms until the guest ran at the destination
}

// pulseWatch watches the work of a guest from outside.
type pulseWatch struct {
	began time.Time
	stop  chan struct{}
	beats chan []beat
}

// word is 8 bytes of a guest's memory.
type word struct {
	file   io.ReaderAt
	offset int64
}

func (w word) read() uint64 {
	var p [8]byte
	if _, err := w.file.ReadAt(p[:], w.offset); err != nil {
		return 0 // QEMU has just ended
	}
	return binary.LittleEndian.Uint64(p[:])
}

// findWord finds the word at an address of a guest with so much memory.
func findWord(files qemuram.Files, address uint64, mib int) (word, error) {
	regions, err := files.Regions(uint64(mib) << 20)
	if err != nil {
		return word{}, err
	}
	for _, r := range regions {
		if address >= r.GPA && address-r.GPA < r.Size {
			return word{r.Source, r.Offset + int64(address-r.GPA)}, nil
		}
	}
	return word{}, fmt.Errorf("find the pulse: %#x is in no memory", address)
}

// ram opens the memory of one side.
func (c benchCase) ram(v *vm.VM, pool string, destination bool) (qemuram.Files, error) {
	if !c.Transport.handsOver() || destination && c.Transport == arrival {
		return qemuram.Open(v.PID())
	}
	f, err := os.Open(pool)
	if err != nil {
		return nil, err
	}
	return qemuram.Files{f}, nil
}

// watchPulse begins to watch, and returns when it has seen some work.
func (r *runner) watchPulse(
	ctx context.Context, rec *record, pool string, source, destination *vm.VM,
) (*pulseWatch, error) {
	address, err := source.Pulse(ctx)
	if err != nil {
		return nil, err
	}
	var sides []word
	var files qemuram.Files
	for i, v := range []*vm.VM{source, destination} {
		f, err := rec.ram(v, pool, i == 1)
		if err == nil {
			var w word
			files = append(files, f...)
			w, err = findWord(f, address, r.sizes.Guest)
			sides = append(sides, w)
		}
		if err != nil {
			files.Close()
			return nil, err
		}
	}
	w := &pulseWatch{
		began: time.Now().Add(pulseAround), stop: make(chan struct{}), beats: make(chan []beat, 1),
	}
	go func() {
		defer files.Close()
		w.watch(ctx, sides)
	}()
	select {
	case <-time.After(time.Until(w.began)):
		return w, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// watch reads both sides until it is stopped. The guest runs where the count is higher.
func (w *pulseWatch) watch(ctx context.Context, sides []word) {
	var beats []beat
	defer func() { w.beats <- beats }()
	tick := time.NewTicker(pulseSample)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		count := uint64(0)
		for _, s := range sides {
			count = max(count, s.read())
		}
		beats = append(beats, beat{time.Since(w.began), count})
	}
}

// end ends the watch some time after now, when all memory is there.
func (w *pulseWatch) end(ctx context.Context, lead int64) (*pulseRecord, error) {
	ended := time.Since(w.began)
	select {
	case <-time.After(pulseAround):
	case <-ctx.Done():
	}
	close(w.stop)
	p := newPulseRecord(<-w.beats, ended)
	p.RunsAfter = lead
	if p.Achieved == 0 {
		return nil, fmt.Errorf("watch the guest's work: it did nothing, from %v", p.Before)
	}
	return p, ctx.Err()
}

// newPulseRecord counts in steps.
func newPulseRecord(beats []beat, ended time.Duration) *pulseRecord {
	p := &pulseRecord{EndMS: ended.Milliseconds()}
	p.Before = inSteps(beats, -pulseAround, 0)
	p.Steps = inSteps(beats, 0, ended+pulseAround)
	last := beat{}
	for _, b := range beats {
		if b.count == last.count && last.at >= 0 {
			p.PauseMS = max(p.PauseMS, (b.at - last.at).Milliseconds())
			continue
		}
		last = b
	}
	if pace := p.pace() / pulseStep.Seconds(); pace > 0 && ended > 0 {
		p.Achieved = float64(countAt(beats, ended)-countAt(beats, 0)) / (pace * ended.Seconds())
	}
	return p
}

// pace is what was done in a step before the command.
func (p *pulseRecord) pace() float64 {
	if len(p.Before) == 0 {
		return 0
	}
	return float64(slices.Sorted(slices.Values(p.Before))[len(p.Before)/2])
}

// inSteps returns what was done in each whole step between two times.
func inSteps(beats []beat, from, to time.Duration) (steps []uint64) {
	for ; from+pulseStep <= to; from += pulseStep {
		steps = append(steps, countAt(beats, from+pulseStep)-countAt(beats, from))
	}
	return steps
}

// countAt returns the count at a time: the last one that was seen, or else the first.
func countAt(beats []beat, at time.Duration) uint64 {
	i, found := slices.BinarySearchFunc(beats, at, func(b beat, at time.Duration) int {
		return int(b.at - at)
	})
	if found {
		return beats[i].count
	}
	if len(beats) == 0 {
		return 0
	}
	return beats[max(i-1, 0)].count
}
