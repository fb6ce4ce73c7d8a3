// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"errors"

	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// maxMisses is how many reads of a request may do nothing but miss zones.
const maxMisses = 3

var errMissed = errors.New("the hook was not reached")

// read is the result of one read of the hook's file.
//
// The kernel does not run the program on a CPU where another BPF program or map operation
// was interrupted (bpf_prog_active in kernel/trace/bpf_trace.c). It then prints the zone, but
// the zone is not walked: it is missed.
type read struct {
	printed    int // zones in the text
	seen       int // zones that ran the program; more than printed if the kernel printed twice
	unfinished int // of the seen zones, those with a list that was cut
	full       bool
}

// done tells whether every zone was walked to its end.
func (r read) done() bool { return r.unfinished == 0 && r.seen >= r.printed }

// missed tells whether all seen zones were walked to their end, but some were not seen.
func (r read) missed() bool { return r.unfinished == 0 && r.seen < r.printed }

// state returns the state after this read. misses counts the reads of the request for which
// missed was true, with this one.
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
