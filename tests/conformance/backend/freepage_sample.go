// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"

	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// fpSample are the rules of section 9.6 for the device. They need a way to ask for a sample.
func fpSample() []check {
	const source = "spec.md, section 9.6"
	return []check{
		{id: "FBPP-SMP-1", source: source,
			text: "SAMPLE names a sampler that the driver has in use, and is sent while neither a COUNT" +
				" nor a SAMPLE is open.",
			run: fpInquires(sampleInquiry(), censusInquiry())},
		{id: "FBPP-SMP-3", source: source,
			text: "A SAMPLED that does not answer the open SAMPLE has no effect," +
				" nor has a part of a sample that fails. Free pages are not used ones.",
			run: fpSampled},
	}
}

func sampleInquiry() *inquiry {
	return &inquiry{
		name: "sample", kind: protocol.KindSampler, event: protocol.EventSample,
		digest: protocol.Digest{0: 0x5a, 31: 0x3e}, ask: askForSample,
		part: samplePart,
		end: func(m *inquiryMachine, d protocol.Digest, number, _ uint64) {
			m.sampled(protocol.SampleReport{Digest: d, Number: number, State: protocol.SampleDone})
		},
	}
}

// askForSample returns how many pages of a sample are hot.
func askForSample(ctx context.Context, c *control.Client) (pages uint64, err error) {
	found, err := c.SampleWorkingSet(ctx, 0)
	if err != nil {
		return 0, err
	}
	return found.HotBytes >> freeset.FrameShift, nil
}

// firstHot is a page frame of the machine's memory.
const firstHot = 1 << 20 >> freeset.FrameShift

// samplePart sends a part with so many hot pages, and one with others that are free.
func samplePart(m *inquiryMachine, d protocol.Digest, number, hot uint64) {
	r := protocol.SampleReport{Digest: d, Number: number}
	for page := range hot {
		r.Pages[(firstHot+page)/8] |= 1 << ((firstHot + page) % 8)
	}
	m.sampled(r)
	r.State, r.Pages = protocol.SampleFree, [len(r.Pages)]byte{0: 0xff}
	m.sampled(r)
}

func (m *inquiryMachine) sampled(r protocol.SampleReport) {
	m.postProgram(protocol.MessageSampled, m.nonce, protocol.SampleReportSize, r.Encode)
}

// keeps checks the sample that the device has, if it has kept one: it is of so many pages.
func (m *inquiryMachine) keeps(pages uint64, when string) {
	m.settle()
	status, err := control.NewClient(m.cfg.ControlPath).Status(m.Context())
	if err != nil {
		m.Errorf("ask for the status: %v", err)
	}
	if x := status.WorkingSet; x != nil && x.HotBytes>>freeset.FrameShift != pages {
		m.Failf("%s: the device has a sample with %d hot bytes, and the last good one had %d pages",
			when, x.HotBytes, pages)
	}
}

func fpSampled(s *session) {
	q := sampleInquiry()
	m, e := fpAnswered(s, q, censusInquiry())
	m.keeps(8, "after a good answer")
	q.answer(m, e.Digest, e.Number, 20)
	m.keeps(8, "after a second answer")

	result, e := m.open(q)
	q.part(m, e.Digest, e.Number, 19)
	m.sampled(protocol.SampleReport{
		Digest: e.Digest, Number: e.Number, State: protocol.SampleFailed, Reason: "a test",
	})
	if r := <-result; r.err == nil {
		m.Failf("a sample that has failed is one of %d pages", r.pages)
	}
	m.keeps(8, "after a sample that has failed")
	result, e = m.open(q)
	q.answer(m, e.Digest, e.Number, 3)
	m.finds(q, result, 3)
	m.keeps(3, "after a sample that has failed, and a good one")

	_, old := m.open(q)
	q.part(m, old.Digest, old.Number, 18)
	m.join(secondNonce)
	m.report(q, protocol.ProgramActive)
	m.settle()
	result, e = m.open(q)
	m.elsewhere(firstNonce, func() { q.answer(m, old.Digest, old.Number, 17) })
	q.answer(m, e.Digest, e.Number, 2)
	m.finds(q, result, 2)
	m.keeps(2, "after a sample of another session, and a good one")
}
