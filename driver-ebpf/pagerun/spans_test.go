// SPDX-License-Identifier: Apache-2.0

package pagerun

import (
	"slices"
	"testing"
)

// zoneText is a zone as Linux prints it, without the lines that do not matter.
func zoneText(node, zone, spanned, present, start string) string {
	return "Node " + node + ", zone " + zone + "\n  pages free     3840\n        spanned  " + spanned +
		"\n        present  " + present + "\n        managed  3840\n  node_unreclaimable:  0\n" +
		"  start_pfn:           " + start + "\n"
}

func TestSpansAreThoseOfTheZones(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []Span
	}{
		"one node": {zoneText("0", "DMA", "4095", "3998", "1") +
			zoneText("0", "DMA32", "258048", "258048", "4096") +
			zoneText("0", "Normal", "0", "0", "0"), []Span{{1, 4096}, {4096, 262144}}},
		"two nodes that overlap": {zoneText("0", "Normal", "1000", "600", "100") +
			zoneText("1", "Normal", "500", "400", "300") +
			zoneText("1", "Movable", "100", "100", "50"), []Span{{50, 1100}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parseSpans(c.text); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
	for _, text := range []string{
		"", "nothing", zoneText("0", "DMA", "0", "0", "0"), zoneText("0", "DMA", "x", "1", "1"),
		zoneText("0", "DMA", "1", "1", "-1"), zoneText("0", "DMA", "1", "1", "9999999999999999999"),
	} {
		if got, err := parseSpans(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzParseSpans(f *testing.F) {
	f.Add(zoneText("0", "DMA", "4095", "3998", "1") + zoneText("1", "Normal", "7", "7", "9"))
	f.Fuzz(func(t *testing.T, text string) {
		spans, err := parseSpans(text)
		for i, s := range spans {
			if err == nil && (s.Start >= s.End || i > 0 && s.Start < spans[i-1].End) {
				t.Fatalf("%v", spans)
			}
		}
	})
}
