// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"

	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/protocol"
)

// fpCensus are the rules of section 9.5 for the device. They need a way to ask for a census.
func fpCensus() []check {
	const source = "spec.md, section 9.5"
	return []check{
		{id: "FBPP-CEN-1", source: source,
			text: "COUNT names a census that the driver has in use, and is sent while neither a COUNT" +
				" nor a SAMPLE is open.",
			run: fpInquires(censusInquiry(), sampleInquiry())},
		{id: "FBPP-CEN-3", source: source,
			text: "A CENSUS that does not answer the open COUNT has no effect.",
			run:  func(s *session) { fpAnswered(s, censusInquiry(), sampleInquiry()) }},
	}
}

func censusInquiry() *inquiry {
	return &inquiry{
		name: "census", kind: protocol.KindCensus, event: protocol.EventCount,
		digest: protocol.Digest{0: 0xce, 31: 0x05}, ask: askForCensus, end: answerCount,
	}
}

// askForCensus returns how many pages a census has found, of all classes.
func askForCensus(ctx context.Context, c *control.Client) (pages uint64, err error) {
	census, err := c.GuestCensus(ctx)
	if err != nil {
		return 0, err
	}
	for _, class := range census.Classes {
		pages += class.Pages
	}
	return pages, nil
}

// answerCount sends a census of so many free pages.
func answerCount(m *inquiryMachine, d protocol.Digest, number, free uint64) {
	r := protocol.CensusReport{Digest: d, Number: number, Runs: 1}
	r.Counts[1][protocol.CensusPages] = free
	m.postProgram(protocol.MessageCensus, m.nonce, protocol.CensusReportSize, r.Encode)
}
