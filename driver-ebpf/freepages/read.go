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
// the zone is not walked: it is missed. The number of zones that ran the program does not tell,
// since the kernel may print some of them twice.
type read struct {
	printed    int // zones in the text
	finished   int // zones walked to their end, in this read or before
	unfinished int // zones with a list that this read has cut
	full       bool
}

// done tells whether every zone was walked to its end.
func (r read) done() bool { return r.unfinished == 0 && r.finished >= r.printed }

// missed tells whether no list was cut, but some zones were never walked.
func (r read) missed() bool { return r.unfinished == 0 && r.finished < r.printed }

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
