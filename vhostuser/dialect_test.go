// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"testing"

	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// dialects are sets of features that change the format or the order of rings.
var dialects = []struct {
	name     string
	features uint64
}{
	{"split", 0},
	{"split with event indices", 1 << wire.FeatureEventIdx},
	{"split in order", 1<<wire.FeatureEventIdx | 1<<wire.FeatureInOrder},
	{"packed", 1 << wire.FeatureRingPacked},
	{"packed with event indices", 1<<wire.FeatureRingPacked | 1<<wire.FeatureEventIdx},
	{"packed in order", 1<<wire.FeatureRingPacked | 1<<wire.FeatureEventIdx | 1<<wire.FeatureInOrder},
}

// eachDialect runs f with the features of each dialect.
func eachDialect(t *testing.T, f func(t *testing.T, features uint64)) {
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) { f(t, d.features) })
	}
}

// speak makes the drivers of v accept these features at the next start.
func (v *vm) speak(features uint64) *vm {
	v.features = virtioFeatures | features
	for _, q := range v.queues {
		q.Negotiate(wire.Features(v.features))
	}
	return v
}

// inOrder says whether the drivers accepted IN_ORDER.
func (v *vm) inOrder() bool { return wire.Features(v.features).Has(wire.FeatureInOrder) }

// checkDrained checks that the device has used all chains that it popped from a
// stopped ring, and that these are n chains since the reset.
func (v *vm) checkDrained(i int, n uint16) {
	v.t.Helper()
	q := v.queues[i]
	base := q.Base()
	if q.Packed() && base&0xffff != base>>16 || !q.Packed() && base != uint32(n) || q.UsedIdx() != n {
		v.t.Errorf("stopped at base %#x with %d chains used, want %d", base, q.UsedIdx(), n)
	}
}
