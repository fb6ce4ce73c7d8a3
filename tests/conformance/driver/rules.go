// SPDX-License-Identifier: Apache-2.0

package driver

import "github.com/fbpp-project/fbpp/tests/conformance/report"

// Names of the rules that the code refers to.
const (
	noRule       = "" // nobody is to blame
	ruleQueue    = "VIRTIO-QUEUE"
	ruleVersion  = "FBPP-ID-1"
	ruleFeatures = "FBPP-FEAT-1"
	ruleConfig   = "FBPP-CFG-3"
	ruleHello    = "FBPP-INIT-1"
	ruleAgain    = "FBPP-INIT-3"
	ruleWanted   = "FBPP-INIT-4"
	ruleBuffers  = "FBPP-INIT-5"
	ruleSpare    = "FBPP-INIT-6"
	ruleUnknown  = "FBPP-EV-5"
	ruleHandsOff = "FBPP-EV-6"
	ruleCancel   = "FBPP-EV-7"
	ruleNoEvent  = "FBPP-EV-8"
	ruleShape    = "FBPP-MSG-1"
	ruleFields   = "FBPP-MSG-2"
	ruleAsked    = "FBPP-MSG-4"
	ruleStable   = "FBPP-MSG-5"
	rulePoison   = "FBPP-HELLO-1"
	ruleMaxOrder = "FBPP-HELLO-4"
	ruleStarted  = "FBPP-STARTED-1"
	ruleLast     = "FBPP-REP-1"
	ruleFree     = "FBPP-REP-2"
	ruleBlock    = "FBPP-REP-3"
	ruleOverlap  = "FBPP-REP-4"
	ruleShift    = "FBPP-REP-5"
	ruleRefusal  = "FBPP-REP-6"
	ruleMost     = "FBPP-REP-7"
	ruleTotal    = "FBPP-REP-8"
	ruleLocks    = "FBPP-REP-10"
	ruleUsable   = "FBPP-OP-1"
)

// AllRules returns all rules of the suite, in the order of the specification.
func AllRules() []report.Rule {
	const spec, virtio = "docs/spec.md, section ", "VIRTIO 1.2, section "
	return []report.Rule{
		{ID: ruleQueue, Text: "the rings and descriptors are well formed", Source: virtio + "2.7"},
		{ID: ruleVersion, Text: "a driver that uses the device accepts VIRTIO_F_VERSION_1", Source: spec + "1"},
		{ID: ruleFeatures, Text: "the driver accepts no reserved feature bit", Source: spec + "3"},
		{ID: ruleConfig, Text: "the driver reads nothing past the end of the configuration", Source: spec + "4"},
		{ID: ruleHello, Text: "the driver says HELLO before anything else", Source: spec + "5"},
		{ID: ruleAgain, Text: "the driver says HELLO again after a reset", Source: spec + "5"},
		{ID: ruleWanted, Text: "the driver answers HELLO_WANTED with a HELLO", Source: spec + "5"},
		{ID: ruleBuffers, Text: "buffers on eventq are writable and have 32 bytes", Source: spec + "5"},
		{ID: ruleSpare, Text: "two buffers or more wait on eventq", Source: spec + "5", Advice: true},
		{ID: ruleUnknown, Text: "the driver ignores unknown events and flags, and gives the buffers back", Source: spec + "6"},
		{ID: ruleHandsOff, Text: "the driver does not write a buffer that is the device's", Source: spec + "6"},
		{ID: ruleCancel, Text: "a CANCEL with another generation has no effect", Source: spec + "6"},
		{ID: ruleNoEvent, Text: "a buffer used with length 0 has no effect and is given back", Source: spec + "6"},
		{ID: ruleShape, Text: "a message is one readable chain, as long as its header says", Source: spec + "7"},
		{ID: ruleFields, Text: "a message has a known type, known flags and status, a valid page shift, and 0 in reserved fields", Source: spec + "7"},
		{ID: ruleAsked, Text: "STARTED and REPORT have a generation that was asked with, HELLO has 0", Source: spec + "7"},
		{ID: ruleStable, Text: "a message does not change before the device has used it", Source: spec + "7"},
		{ID: rulePoison, Text: "a driver that sets PAGE_POISON has the status CONTENT_MATTERS", Source: spec + "7.1"},
		{ID: ruleMaxOrder, Text: "no block has a higher order than HELLO says", Source: spec + "7.1"},
		{ID: ruleStarted, Text: "STARTED comes before the first REPORT of a request", Source: spec + "7.2", Advice: true},
		{ID: ruleLast, Text: "a request is answered by REPORTs of which the last, and only that one, carries LAST", Source: spec + "7.3"},
		{ID: ruleFree, Text: "a block was free after the driver saw the event", Source: spec + "7.3"},
		{ID: ruleBlock, Text: "a block is aligned to its size, lies in guest memory, and has class 0", Source: spec + "7.3"},
		{ID: ruleOverlap, Text: "blocks do not overlap before RESUMED", Source: spec + "7.3"},
		{ID: ruleShift, Text: "all messages of a request have the same page shift", Source: spec + "7.3"},
		{ID: ruleRefusal, Text: "a message with a status other than OK carries LAST and no records", Source: spec + "7.3"},
		{ID: ruleMost, Text: "a request has at most twice as many records as memory has pages of 4 KiB", Source: spec + "7.3"},
		{ID: ruleTotal, Text: "the trailer counts the records of the request", Source: spec + "7.3"},
		{ID: ruleLocks, Text: "the driver does not stop the guest while it waits for the device", Source: spec + "7.3"},
		{ID: ruleUsable, Text: "the driver answers the next request, whatever happened in this one", Source: spec + "8"},
	}
}
