// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// pageShift is of the pages in which guest memory is counted here. They are the
// smallest that a guest may have.
const pageShift = protocol.MinPageShift

// judge checks the messages of the driver, one by one. It knows the rules for drivers.
// It does not know the queues.
type judge struct {
	ledger
	memory []vhostuser.Region

	driver   *introduction // nil before HELLO
	stranger bool          // the driver may still answer requests of an earlier device
	hellos   int           // how many came
	helloDue string        // the rule that requires a HELLO before other messages; "": none
	requests map[uint64]*request
	programs programs
	phantoms map[uint64]string // by generation of an event that asks for nothing: the rule about it
}

func newJudge(now func() time.Time) judge {
	return judge{
		ledger:   newLedger(now),
		helloDue: ruleHello,
		requests: make(map[uint64]*request),
		phantoms: make(map[uint64]string),
		programs: programs{
			offers: make(map[protocol.Digest]*offer), inquiries: make(map[uint64]*inquiry),
		},
	}
}

// meets is called when the driver starts reportq. taken says that a device has used
// messages of this queue before. The driver may have sent its HELLO to that device.
func (j *judge) meets(taken bool) {
	if j.hellos > 0 || j.helloDue == ruleAgain {
		return
	}
	j.stranger, j.helloDue = taken, ruleHello
	if taken {
		j.helloDue = noRule
		j.skip("messages were taken from reportq before:"+
			" the driver may have said HELLO to an earlier device", ruleHello)
	}
}

// introduction is the content of a HELLO.
type introduction struct {
	protocol.Hello
	status    protocol.Status
	pageShift uint8
}

// refuses says whether the driver must not be asked.
func (i *introduction) refuses() bool {
	return i.status != protocol.StatusOK || i.Features&protocol.FeaturePagePoison != 0
}

// read judges a message that the driver has made available.
func (j *judge) read(c *vhostuser.Chain) protocol.Header {
	h, err := parseHeader(c)
	r := j.requests[h.Generation]
	switch {
	case err == nil:
		j.note("driver: %v", h)
		j.saw(ruleShape, ruleFields, ruleAsked)
		err = j.message(h, c)
	case h.Type == protocol.MessageHello:
		j.greeted() // a malformed HELLO is one, too
	case h.Type == protocol.MessageReport && h.Flags&protocol.FlagLast != 0 && r != nil:
		r.ended = true
	}
	j.blame(err)
	return h
}

// blame records an error as a breach: of the rule that it names, or else of the rule
// about rings, because a chain could not be read.
func (j *judge) blame(err error) {
	if b := asBreach(err); b != nil {
		j.broke(b.rule, "%s", b.seen)
	} else if err != nil {
		j.broke(ruleQueue, "%v", err)
	}
}

func (j *judge) message(h protocol.Header, c *vhostuser.Chain) error {
	if h.Type == protocol.MessageHello {
		return j.hello(h, c)
	}
	if h.Type.IsProgram() && (j.driver != nil || !j.stranger) {
		return j.aboutPrograms(h, c)
	}
	r := j.requests[h.Generation]
	if r == nil && j.stranger {
		return nil // it answers a request of an earlier device
	}
	j.stranger = false
	if rule := j.helloDue; rule != "" {
		j.helloDue = ""
		j.broke(rule, "%v comes before any HELLO", h)
	}
	if rule, ok := j.phantoms[h.Generation]; ok {
		return breaks(rule, "%v answers what the device wrote, which was no request", h)
	}
	if r == nil {
		return breaks(ruleAsked, "%v: no request had this generation", h)
	}
	if r.lost {
		return nil
	}
	if r.messages++; r.messages > 1 {
		j.saw(ruleShift)
	}
	if r.pageShift != 0 && r.pageShift != h.PageShift {
		j.blame(breaks(ruleShift, "%v: an earlier message of the request has page shift %d",
			h, r.pageShift))
	}
	r.pageShift = h.PageShift
	if h.Type == protocol.MessageStarted {
		r.started = true
		return nil
	}
	return j.report(r, h, c)
}

// greeted counts a HELLO.
func (j *judge) greeted() {
	if j.helloDue != "" {
		j.saw(j.helloDue)
	}
	j.helloDue = ""
	j.hellos++
}

func (j *judge) hello(h protocol.Header, c *vhostuser.Chain) error {
	j.greeted()
	hello, err := parseHello(c)
	if err != nil {
		return err
	}
	j.driver = &introduction{hello, h.Status, h.PageShift}
	j.note("driver: hello: %q, order %d, %d bytes, features %v, reason %q",
		hello.Release, hello.MaxOrder, hello.RAMBytes, hello.Features, hello.Reason)
	j.saw(rulePoison)
	if hello.Features&protocol.FeaturePagePoison != 0 && h.Status != protocol.StatusContentMatters {
		return breaks(rulePoison, "hello has the feature page-poison and the status %v", h.Status)
	}
	if h.Generation != 0 {
		return breaks(ruleAsked, "hello has generation %d", h.Generation)
	}
	return nil
}

// report judges a REPORT of a request.
func (j *judge) report(r *request, h protocol.Header, c *vhostuser.Chain) error {
	j.saw(ruleLast, ruleRefusal, ruleStarted)
	if !r.started && j.breaches == r.breaches { // after a breach: STARTED may have been malformed
		j.advise(ruleStarted, "%v comes without STARTED", h)
	}
	if r.ended {
		return breaks(ruleLast, "%v comes after the request's message with LAST", h)
	}
	if h.Flags&protocol.FlagResumed != 0 && r.resumedAt == 0 {
		r.resumedAt = r.messages
	}
	j.saw(ruleMost)
	if most := 2 * j.pages(); r.records+uint64(h.Count) > most {
		r.lost = true
		return breaks(ruleMost, "%v makes %d records of the request, at most %d are allowed",
			h, r.records+uint64(h.Count), most)
	}
	maxOrder := uint8(protocol.MaxOrder)
	if j.driver != nil {
		maxOrder = j.driver.MaxOrder
	}
	if h.Count > 0 {
		j.saw(ruleBlock, ruleMaxOrder)
		if len(r.pinned) > 0 {
			j.saw(ruleFree)
		}
	}
	err := eachRecord(h, c, func(_ uint32, record protocol.Record) error {
		j.blame(r.add(record, j.memory, maxOrder))
		return nil
	})
	if err != nil || h.Flags&protocol.FlagLast == 0 {
		return err
	}
	r.ended, r.status = true, h.Status
	if len(r.blocks) > 1 {
		j.saw(ruleOverlap)
	}
	j.blame(r.overlap())
	r.blocks = nil
	if h.Status != protocol.StatusOK {
		return nil
	}
	if r.trailer, err = parseTrailer(h, c); err != nil {
		return err
	}
	j.dropped(r)
	j.saw(ruleTotal)
	if r.trailer.Records != r.records {
		return breaks(ruleTotal, "the trailer counts %d records, %d came in %d messages",
			r.trailer.Records, r.records, r.messages)
	}
	return nil
}

// pages returns how many pages of 4 KiB guest memory has. The guest's own pages may be
// larger.
func (j *judge) pages() uint64 {
	var bytes uint64
	for _, m := range j.memory {
		bytes += m.Size
	}
	return bytes >> pageShift
}
