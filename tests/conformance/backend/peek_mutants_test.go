// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/freeset"
	"github.com/fbpp-project/fbpp/device/source"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// peeker is a source that finds two blocks free after it has peeked at them twice.
type peeker struct{}

func (peeker) Name() string { return "peeker" }

func (peeker) Ask(ctx context.Context, r source.Request, f *source.Findings) error {
	region := r.Memory.Regions()[0]
	pages := []freeset.Range{
		{GPA: region.Addr, Length: 64 << 12}, {GPA: region.Addr + 128<<12, Length: 8 << 12},
	}
	for range 2 {
		if r.Written == nil {
			break
		}
		if _, err := r.Written(ctx, pages); err != nil {
			return err
		}
	}
	_, _, err := f.Free.Add([]freeset.Block{{First: region.Addr >> 12, Count: 8}}, false)
	return err
}

func TestDefectsInPeekingAreFound(t *testing.T) {
	for _, tc := range []struct {
		defect string
		relay  relay
		rules  string
		want   report.Outcome
	}{
		{"none", relay{}, "FBPP-WIN-1[234]", report.Pass},
		{"a range is no page", relay{peek: func(f []byte) { le.PutUint64(f[atGPA+8:], 512) }},
			"FBPP-WIN-12", report.Fail},
		{"there are more ranges than slots", relay{peek: func(f []byte) {
			le.PutUint64(f[atPeekNumber+16:], 1<<40)
		}}, "FBPP-WIN-12", report.Fail},
		{"another request is named", relay{peek: func(f []byte) {
			le.PutUint64(f[atPeekNumber+8:], le.Uint64(f[atPeekNumber+8:])+1)
		}}, "FBPP-WIN-13", report.Fail},
		{"answers are not waited for", relay{forward: true}, "FBPP-WIN-14", report.Fail},
	} {
		t.Run(tc.defect, func(t *testing.T) {
			t.Parallel()
			dev := device.New(device.Options{
				Logger: zap.NewNop(), WindowSize: 1 << 16, More: []source.Source{peeker{}},
			})
			c := backend.Config{
				SocketPath: serveMutant(t, serve(t, dev.VhostUser()), tc.relay.between()),
				Profile:    backend.FreePage(), Patience: 5 * time.Second,
			}
			for id, r := range results(t, c, tc.rules) {
				if r.Outcome != tc.want {
					t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
				}
			}
		})
	}
}

// A backend that looks for itself, and finds no kernel, gives no occasion.
func TestRulesAboutPeekingAreSkippedWithoutAPeek(t *testing.T) {
	dev := device.New(device.Options{
		Logger: zap.NewNop(), WindowSize: 1 << 16, Source: device.PolicyAuto,
	})
	c := backend.Config{SocketPath: serve(t, dev.VhostUser()), Profile: backend.FreePage()}
	for id, r := range results(t, c, "FBPP-WIN-1[234]") {
		if r.Outcome != report.Skip {
			t.Errorf("%s: %v %s", id, r.Outcome, r.Detail)
		}
	}
}
