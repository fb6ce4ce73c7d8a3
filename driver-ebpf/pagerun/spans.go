// SPDX-License-Identifier: Apache-2.0

package pagerun

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

const zoneinfo = "/proc/zoneinfo"

// Span is a run of page frames that may have struct pages.
type Span struct{ Start, End uint64 }

// Until returns the part of a span up to the next multiple of n, a power of two, or all of it.
func (s Span) Until(n uint64) Span { return Span{s.Start, min(s.End, (s.Start|(n-1))+1)} }

// maxFrame bounds a page frame number: no machine has more.
const maxFrame = 1 << 52

// readSpans returns the frames of all zones. Memory may come and go: it is read for each use.
func readSpans() ([]Span, error) {
	text, err := os.ReadFile(zoneinfo)
	if err != nil {
		return nil, fmt.Errorf("find the guest's memory: %w", err)
	}
	spans, err := parseSpans(string(text))
	if err != nil {
		return nil, fmt.Errorf("find the guest's memory in %s: %w", zoneinfo, err)
	}
	return spans, nil
}

// parseSpans reads the text of /proc/zoneinfo (mm/vmstat.c, zoneinfo_show_print). Zones of two
// nodes may overlap: a frame is in one span only.
func parseSpans(text string) ([]Span, error) {
	var spans []Span
	var spanned, present uint64
	for line := range strings.Lines(text) {
		name, value := splitLine(line)
		n, err := strconv.ParseUint(value, 10, 64)
		switch name {
		case "Node":
			spanned, present = 0, 0
			continue
		case "spanned", "present", "start_pfn":
			if err != nil || n > maxFrame {
				return nil, fmt.Errorf("%q is no number of pages", strings.TrimSpace(line))
			}
		}
		switch name {
		case "spanned":
			spanned = n
		case "present":
			present = n
		case "start_pfn":
			if present > 0 && spanned > 0 {
				spans = append(spans, Span{n, n + spanned})
			}
		}
	}
	if len(spans) == 0 {
		return nil, errors.New("no zone has memory")
	}
	return merge(spans), nil
}

// splitLine returns the first two words of a line, the first without a colon.
func splitLine(line string) (name, value string) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return "", ""
	}
	return strings.TrimSuffix(words[0], ":"), words[1]
}

// merge sorts spans, and joins those that overlap.
func merge(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	merged := spans[:1]
	for _, s := range spans[1:] {
		if last := &merged[len(merged)-1]; s.Start < last.End {
			last.End = max(last.End, s.End)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}
