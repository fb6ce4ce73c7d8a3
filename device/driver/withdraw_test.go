// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// A guest that has forgotten a program cannot say of which kind it was.
func TestWithdrawalKeepsWhatTheProgramIs(t *testing.T) {
	w := withdrawal{pending: true, report: protocol.ProgramReport{
		Digest: protocol.Digest{1}, Kind: protocol.KindCensus, Version: 7,
		State: protocol.ProgramActive,
	}}
	w.tell(protocol.ProgramReport{
		Digest: protocol.Digest{1}, Kind: protocol.KindWalk, State: protocol.ProgramWithdrawn,
	})
	if w.pending || w.report.Kind != protocol.KindCensus || w.report.Version != 7 ||
		w.report.State != protocol.ProgramWithdrawn {
		t.Errorf("%+v", w)
	}
}
