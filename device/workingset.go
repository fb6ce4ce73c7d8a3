// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// sampleAge is how long a sample tells what is hot. Later, what the guest's kernel counts as used
// lately is as good a guess.
const sampleAge = 10 * time.Minute

// orderBySample is the name of a sample as the source of an order.
const orderBySample = "sampler"

// WorkingSet is what a sample found. The guest may lie.
type WorkingSet struct {
	Taken       time.Time `json:"taken"`
	IntervalMS  int64     `json:"interval_ms"` // how long the guest was watched
	HotBytes    uint64    `json:"hot_bytes"`   // of the guest's memory, which has MemoryBytes
	MemoryBytes uint64    `json:"memory_bytes"`
	// TookUS is how long the guest took for all, the interval included.
	TookUS   uint32 `json:"took_us"`
	Runs     uint32 `json:"runs"` // of the program, the longest of RunMaxUS
	RunMaxUS uint32 `json:"run_max_us"`
	Digest   string `json:"digest"` // of the program
}

// workingSet describes a sample. It is nil for none.
func workingSet(x *driver.Sample) *WorkingSet {
	if x == nil {
		return nil
	}
	return &WorkingSet{
		Taken: x.Taken, IntervalMS: x.Interval.Milliseconds(),
		HotBytes:    x.Used << freeset.FrameShift,
		MemoryBytes: x.Hot.Capacity() << freeset.FrameShift,
		TookUS:      x.Report.TookUS, Runs: x.Report.Runs, RunMaxUS: x.Report.RunMaxUS,
		Digest: x.Report.Digest.String(),
	}
}

// SampleWorkingSet has the guest find which memory it uses in an interval, by the program of the
// kind sampler that it has in use. A migration that begins within ten minutes sends that memory
// first, where it sends any memory first. It fails with ErrNoMemory, with
// [driver.ErrNoProgramOfKind], and as [driver.Source.Sample] does. It may be called at any time,
// but a migration goes first.
func (d *Device) SampleWorkingSet(
	ctx context.Context, interval time.Duration,
) (*WorkingSet, error) {
	if interval < 0 || interval > protocol.MaxSampleInterval {
		return nil, fmt.Errorf("an interval of %v: the longest is %v", interval,
			protocol.MaxSampleInterval)
	}
	d.mu.Lock()
	memory := ranges(d.memory)
	d.mu.Unlock()
	if memory == nil {
		return nil, ErrNoMemory
	}
	x, err := d.driver.Sample(ctx, interval, memory)
	debug.FreeOSMemory() // of the sample before, or of this: its sets are as large as the free set
	if err != nil {
		return nil, err
	}
	d.watchers.wake()
	return workingSet(x), nil
}

// freshSample returns a sample that tells what is hot now, or nil.
func (d *Device) freshSample() *driver.Sample {
	if x := d.driver.WorkingSet(); x != nil && time.Since(x.Taken) < sampleAge {
		return x
	}
	return nil
}
