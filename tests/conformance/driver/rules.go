// SPDX-License-Identifier: Apache-2.0

package driver

import "github.com/fbpp-project/fbpp/tests/conformance/report"

// Names of the rules that the code refers to.
const (
	noRule       = "" // no rule is broken
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
	ruleNotAsked = "FBPP-DROP-3"
	ruleDropMost = "FBPP-DROP-4"
	ruleDropTime = "FBPP-DROP-5"
	ruleUsable   = "FBPP-OP-1"
	ruleRoom     = "FBPP-PROG-1"
	ruleAccepts  = "FBPP-PROG-3"
	ruleSession  = "FBPP-PROG-5"
	ruleOffer    = "FBPP-PROG-7"
	ruleDigest   = "FBPP-PROG-8"
	ruleKnown    = "FBPP-PROG-9"
	ruleCount    = "FBPP-CEN-2"
	ruleSample   = "FBPP-SMP-2"
)

// AllRules returns all rules of the suite, in the order of the specification.
func AllRules() []report.Rule {
	const spec, virtio = "docs/spec.md, section ", "VIRTIO 1.2, section "
	return []report.Rule{
		{ID: ruleQueue, Source: virtio + "2.7",
			Text: "the rings and descriptors are well formed"},
		{ID: ruleVersion, Source: spec + "1",
			Text: "a driver that uses the device accepts VIRTIO_F_VERSION_1"},
		{ID: ruleFeatures, Source: spec + "3",
			Text: "the driver accepts no reserved feature bit"},
		{ID: ruleConfig, Source: spec + "4",
			Text: "the driver reads nothing past the end of the configuration"},
		{ID: ruleHello, Source: spec + "5",
			Text: "the driver says HELLO before anything else"},
		{ID: ruleAgain, Source: spec + "5",
			Text: "the driver says HELLO again after a reset"},
		{ID: ruleWanted, Source: spec + "5",
			Text: "the driver answers HELLO_WANTED with a HELLO"},
		{ID: ruleBuffers, Source: spec + "5",
			Text: "buffers on eventq are writable and have 32 bytes"},
		{ID: ruleSpare, Source: spec + "5", Advice: true,
			Text: "two buffers or more wait on eventq"},
		{ID: ruleUnknown, Source: spec + "6",
			Text: "the driver ignores unknown events and flags, and gives the buffers back"},
		{ID: ruleHandsOff, Source: spec + "6",
			Text: "the driver does not write a buffer that is the device's"},
		{ID: ruleCancel, Source: spec + "6",
			Text: "a CANCEL with another generation has no effect"},
		{ID: ruleNoEvent, Source: spec + "6",
			Text: "a buffer used with length 0 has no effect and is given back"},
		{ID: ruleShape, Source: spec + "7",
			Text: "a message is one readable chain, as long as its header says"},
		{ID: ruleFields, Source: spec + "7",
			Text: "a message has a known type, known flags and status, a valid page shift," +
				" and 0 in reserved fields"},
		{ID: ruleAsked, Source: spec + "7",
			Text: "STARTED and REPORT have a generation that was asked with, HELLO has 0"},
		{ID: ruleStable, Source: spec + "7",
			Text: "a message does not change before the device has used it"},
		{ID: rulePoison, Source: spec + "7.1",
			Text: "a driver that sets PAGE_POISON has the status CONTENT_MATTERS"},
		{ID: ruleMaxOrder, Source: spec + "7.1",
			Text: "no block has a higher order than HELLO says"},
		{ID: ruleStarted, Source: spec + "7.2", Advice: true,
			Text: "STARTED comes before the first REPORT of a request"},
		{ID: ruleLast, Source: spec + "7.3",
			Text: "a request is answered by REPORTs of which the last, and only that one, carries LAST"},
		{ID: ruleFree, Source: spec + "7.3",
			Text: "a block was free after the driver saw the event"},
		{ID: ruleBlock, Source: spec + "7.3",
			Text: "a block is aligned to its size, lies in guest memory, and has class 0"},
		{ID: ruleOverlap, Source: spec + "7.3",
			Text: "blocks do not overlap before RESUMED"},
		{ID: ruleShift, Source: spec + "7.3",
			Text: "all messages of a request have the same page shift"},
		{ID: ruleRefusal, Source: spec + "7.3",
			Text: "a message with a status other than OK carries LAST and no records"},
		{ID: ruleMost, Source: spec + "7.3",
			Text: "a request has at most twice as many records as memory has pages of 4 KiB"},
		{ID: ruleTotal, Source: spec + "7.3",
			Text: "the trailer counts the records of the request"},
		{ID: ruleLocks, Source: spec + "7.3",
			Text: "the driver does not stop the guest while it waits for the device"},
		{ID: ruleNotAsked, Source: spec + "7.5",
			Text: "a driver that was not asked to drop cache counts none"},
		{ID: ruleDropMost, Source: spec + "7.5",
			Text: "a driver does not count more cache as dropped than it was asked for"},
		{ID: ruleDropTime, Source: spec + "7.5",
			Text: "a driver that drops cache answers before the deadline all the same"},
		{ID: ruleUsable, Source: spec + "8",
			Text: "the driver answers the next request, whatever happened in this one"},
		{ID: ruleRoom, Source: spec + "9.4",
			Text: "event buffers of a driver that takes programs have 512 bytes"},
		{ID: ruleAccepts, Source: spec + "9.4",
			Text: "ACCEPTS follows a HELLO that was wanted, with a nonce of its own"},
		{ID: ruleSession, Source: spec + "9.4",
			Text: "an event about programs with another nonce has no effect"},
		{ID: ruleOffer, Source: spec + "9.4",
			Text: "an OFFER is answered by a PROGRAM with a final state"},
		{ID: ruleDigest, Source: spec + "9.4",
			Text: "an object whose SHA-256 is not the digest does not get in use"},
		{ID: ruleKnown, Source: spec + "9.4",
			Text: "a device without the flag PROGRAMS gets no message about programs"},
		{ID: ruleCount, Source: spec + "9.5",
			Text: "a COUNT is answered by one CENSUS that repeats its digest and number"},
		{ID: ruleSample, Source: spec + "9.6",
			Text: "a SAMPLE is answered by parts and then one end, which repeat its digest and number"},
	}
}
