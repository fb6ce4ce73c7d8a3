// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fbpp-project/fbpp/device/protocol"
)

// hintStatuses returns the statuses of query-migrate, in QEMU's order.
func hintStatuses() []string {
	var names []string
	for s := protocol.HintStatus(0); !strings.HasPrefix(s.String(), "status("); s++ {
		names = append(names, s.String())
	}
	return names
}

// section returns the part of a document below a heading.
func section(t *testing.T, path, heading string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", path, heading)
	}
	part, _, _ = strings.Cut(part, "\n#")
	return part
}

// docs/window.md has the numbers and names that fbppd writes.
func TestWindowHasEachStatus(t *testing.T) {
	var got, want []string
	row := regexp.MustCompile(`(?m)^\| (\d+) \| ([a-z-]+) \|`)
	for _, m := range row.FindAllStringSubmatch(section(t, "docs/window.md", "## Status"), -1) {
		got = append(got, m[1]+" "+m[2])
	}
	for s := range protocol.AnswerStatus(protocol.NumAnswers) {
		want = append(want, fmt.Sprintf("%d %v", s, s))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/window.md, Status, has others than device/protocol (-want +got):\n%s", diff)
	}
}

// docs/window.md has the statuses that QEMU writes.
func TestWindowHasEachStatusOfQueryMigrate(t *testing.T) {
	var want []string
	for i, name := range hintStatuses() {
		want = append(want, fmt.Sprintf("%d %s", i, name))
	}
	list := strings.Join(want, ", ") + " |"
	if !strings.Contains(section(t, "docs/window.md", "## The outcome"), list) {
		t.Errorf("docs/window.md does not say of outcome_hints: %s", list)
	}
}

// Each status is described in QEMU's schema, in one of the patches.
func TestSeriesHasEachStatus(t *testing.T) {
	patches, err := filepath.Glob(filepath.Join(root, "qemu-patches", "*", "*.patch"))
	if err != nil || len(patches) == 0 {
		t.Fatalf("found %d patches: %v", len(patches), err)
	}
	series := make(map[string]string)
	for _, path := range patches {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		series[filepath.Dir(path)] += string(text)
	}
	for dir, text := range series {
		for _, name := range hintStatuses() {
			if !strings.Contains(text, "\n+# @"+name+": ") {
				t.Errorf("no patch of %s adds the status %s to the schema", dir, name)
			}
		}
	}
}

// docs/operating.md says what to do about each status other than ok.
func TestOperatorsAreToldOfEachStatus(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| ([a-z][a-z, -]*) \| `)
	var got []string
	table := section(t, "docs/operating.md", "## When there were no hints")
	for _, m := range rows.FindAllStringSubmatch(table, -1) {
		got = append(got, strings.Split(m[1], ", ")...)
	}
	got = slices.DeleteFunc(got, func(s string) bool { return s == "status" }) // the head
	want := hintStatuses()[1:]
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/operating.md explains others than query-migrate has (-want +got):\n%s", diff)
	}
}

// The description of the metrics has each status that fbppd decides.
func TestMetricsAreDocumentedWithEachStatus(t *testing.T) {
	table := section(t, "docs/operating.md", "## Metrics")
	_, row, _ := strings.Cut(table, "| `fbpp_requests_total{status=…}` |")
	row, _, _ = strings.Cut(row, "\n")
	for s := range protocol.AnswerStatus(protocol.NumAnswers) {
		if !strings.Contains(row, fmt.Sprintf("`%v`", s)) {
			t.Errorf("docs/operating.md, fbpp_requests_total, lacks %v", s)
		}
	}
}
