// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"errors"
	"testing"

	"github.com/fbpp-project/fbpp/device/freeset"
	syn "github.com/fbpp-project/fbpp/device/introspect/introspecttest"
	"github.com/fbpp-project/fbpp/device/placement"
	"github.com/fbpp-project/fbpp/device/source"
)

// A placement needs no frontend that tells what was written, and no sign of life.
func TestSetsAreFilledByOneLook(t *testing.T) {
	s := newSetting(t, hotAndCold)
	sets := placement.NewSets([]freeset.Range{{GPA: syn.FirstPFN << 12, Length: few << 12}})
	if err := s.o.Sets(t.Context(), sets); err != nil {
		t.Fatal(err)
	}
	expectOrder(t, &source.Order{Hot: sets.Hot, Cold: sets.Cold})
	if sets.Free.Frames() != 32*8 || s.asked != 0 {
		t.Errorf("%d free frames, by %d peeks", sets.Free.Frames(), s.asked)
	}
	s.o.setGuest(nil, nil)
	if err := s.o.Sets(t.Context(), sets); !errors.Is(err, ErrNoMemory) {
		t.Errorf("without a guest: %v", err)
	}
}
