// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"

	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// maxMisses is how often a request reads again for nothing but missed zones.
const maxMisses = 3

var errMissed = errors.New("the hook was not reached")

// read is what one read of buddyinfo came to.
//
// The kernel leaves a program out on a CPU where another user of BPF was
// preempted inside a map operation (bpf_prog_active in kernel/trace/bpf_trace.c).
// The zone is printed all the same, and not walked.
type read struct {
	printed    int // zones, by the text
	seen       int // by the program; more than printed when the text was made twice
	unfinished int // of those seen
	full       bool
}

// done tells whether every zone was walked to its end.
func (r read) done() bool { return r.unfinished == 0 && r.seen >= r.printed }

// missed tells whether nothing but zones that were not seen is left to do.
func (r read) missed() bool { return r.unfinished == 0 && r.seen < r.printed }

// state returns what the read leaves. misses counts the reads of the request
// that missed zones and did nothing else, with this one.
func (r read) state(misses int) (walk.State, error) {
	switch {
	case r.done():
		return walk.Done, nil
	case r.full:
		return walk.Full, nil
	case r.missed() && misses > maxMisses:
		return walk.More, errMissed
	}
	return walk.More, nil
}
