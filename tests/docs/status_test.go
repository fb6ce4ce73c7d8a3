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

// answers returns all statuses of an answer, and hints all of query-migrate.
func answers() (all []protocol.AnswerStatus) {
	for s := range protocol.AnswerStatus(protocol.NumAnswers) {
		all = append(all, s)
	}
	return all
}

func hints() (names []string) {
	for s := range protocol.HintStatus(protocol.NumHints) {
		names = append(names, s.String())
	}
	return names
}

// qualified names a status, and also says what QEMU calls it if that is another name.
func qualified(s protocol.AnswerStatus, format string) string {
	name := fmt.Sprintf("`%v`", s)
	if hint := s.Info().Hint.String(); hint != s.String() {
		name += fmt.Sprintf(" ("+format+" `%s`)", hint)
	}
	return name
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

// The table in docs/window.md is that of device/protocol.
func TestWindowHasEachStatus(t *testing.T) {
	want := "| value | name | meaning |\n|---|---|---|\n"
	for _, s := range answers() {
		want += fmt.Sprintf("| %d | %v | %s |\n", s, s, s.Info().Meaning)
	}
	if text := section(t, "docs/window.md", "## Status"); !strings.Contains(text, want) {
		t.Errorf("docs/window.md, Status, does not have this table:\n%s", want)
	}
}

// docs/window.md has the statuses that QEMU writes.
func TestWindowHasEachStatusOfQueryMigrate(t *testing.T) {
	var want []string
	for i, name := range hints() {
		want = append(want, fmt.Sprintf("%d %s", i, name))
	}
	list := strings.Join(want, ", ") + " |"
	if !strings.Contains(section(t, "docs/window.md", "## The outcome"), list) {
		t.Errorf("docs/window.md does not say of outcome_hints: %s", list)
	}
}

// series returns the text of all patches of each series.
func series(t *testing.T) map[string]string {
	t.Helper()
	patches, err := filepath.Glob(filepath.Join(root, "qemu-patches", "*", "*.patch"))
	if err != nil || len(patches) == 0 {
		t.Fatalf("found %d patches: %v", len(patches), err)
	}
	all := make(map[string]string)
	for _, path := range patches {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Dir(path)] += string(text)
	}
	return all
}

// Each status is described in QEMU's schema, in one of the patches.
func TestSeriesHasEachStatus(t *testing.T) {
	for dir, text := range series(t) {
		for _, name := range hints() {
			if !strings.Contains(text, "\n+# @"+name+": ") {
				t.Errorf("no patch of %s adds the status %s to the schema", dir, name)
			}
		}
	}
}

// QEMU maps each status of an answer to the one that device/protocol says.
func TestSeriesMapsEachStatusOfAnAnswer(t *testing.T) {
	const prefix = "MIGRATION_FREE_PAGE_HINT_STATUS_"
	var want []string
	for _, s := range answers() {
		hint := strings.ToUpper(s.Info().Hint.String())
		want = append(want, strings.ReplaceAll(hint, "-", "_"))
	}
	constant := regexp.MustCompile(prefix + `([A-Z_]+),`)
	for dir, text := range series(t) {
		_, table, found := strings.Cut(text, "\n+static MigrationFreePageHintStatus fbpp_status(")
		table, _, closed := strings.Cut(table, "\n+    };\n")
		if !found || !closed {
			t.Fatalf("no patch of %s has the array of fbpp_status(): is it written otherwise now?", dir)
		}
		var got []string
		for _, m := range constant.FindAllStringSubmatch(table, -1) {
			got = append(got, m[1])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("fbpp_status() of %s maps otherwise than device/protocol (-want +got):\n%s", dir, diff)
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
	want := hints()[1:]
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/operating.md explains others than query-migrate has (-want +got):\n%s", diff)
	}
}

// docs/operating.md says which statuses fbppd knows, and what QEMU calls them.
func TestOperatorsAreToldWhatFBPPDKnows(t *testing.T) {
	var want []string
	for _, s := range answers()[1:] {
		want = append(want, qualified(s, "QEMU calls it"))
	}
	last := len(want) - 1
	list := strings.Join(want[:last], ", ") + " and " + want[last] + "."
	text := section(t, "docs/operating.md", "## When there were no hints")
	if !strings.Contains(strings.Join(strings.Fields(text), " "), list) {
		t.Errorf("docs/operating.md does not say of the statuses that fbppd knows: %s", list)
	}
}

// The description of the metrics has each status that fbppd decides.
func TestMetricsAreDocumentedWithEachStatus(t *testing.T) {
	var want []string
	for _, s := range answers() {
		want = append(want, qualified(s, "in QEMU"))
	}
	list := ": " + strings.Join(want, ", ") + " |"
	table := section(t, "docs/operating.md", "## Metrics")
	_, row, _ := strings.Cut(table, "| `fbpp_requests_total{status=…}` |")
	if row, _, _ = strings.Cut(row, "\n"); !strings.HasSuffix(row, list) {
		t.Errorf("docs/operating.md, fbpp_requests_total, does not end with %s", list)
	}
}
