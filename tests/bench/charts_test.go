// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// plannedOnce plans one run of each load by each method.
func plannedOnce(loads []load, methods []method) []planned {
	var m []planned
	for _, l := range loads {
		for _, how := range methods {
			m = append(m, planned{benchCase{l, how, unlimited, stream}, 1})
		}
	}
	return m
}

func TestPanelsShowFiguresAndWhereThereAreNone(t *testing.T) {
	failed := record{run: run{benchCase{fresh, stock, unlimited, stream}, 1}, Error: "no"}
	once := made(noLoad, fbpp, 2, 3000, 1<<30)
	once.Error = "no"
	records := []record{made(noLoad, stock, 1, 2000, 1), made(noLoad, fbpp, 1, 1000, 1), once, failed}
	cases := append(plannedOnce([]load{noLoad, fresh}, []method{fbpp, stock}),
		planned{benchCase{noLoad, balloon1, unlimited, stream}, 1})
	total := allCharts()[1]
	got := total.panels(summarize(cases, records))
	want := []panel{
		{load: noLoad, bars: []bar{
			{method: stock, spread: spread{2, 2, 2, 1}},
			{method: balloon1, absent: "not run"},
			{method: fbpp, spread: spread{1, 1, 1, 1}, failed: true},
		}},
		{load: fresh, bars: []bar{
			{method: stock, failed: true, absent: "failed"},
			{method: balloon1, absent: "–"},
			{method: fbpp, absent: "not run"},
		}},
	}
	diff := cmp.Diff(want, got,
		cmp.AllowUnexported(panel{}, bar{}), cmpopts.EquateApprox(0, 1e-9))
	if diff != "" {
		t.Error(diff)
	}
	if got := allCharts()[4].panels(summarize(cases, records)); got != nil {
		t.Errorf("a link that nobody used: %v", got)
	}
	var labels []string
	for _, b := range got[0].bars {
		labels = append(labels, b.label())
	}
	if diff := cmp.Diff([]string{"2.00", "not run", "1.00 (some failed)"}, labels); diff != "" {
		t.Error(diff)
	}
}

func TestFiguresAreShort(t *testing.T) {
	for v, want := range map[float64]string{
		0.258: "0.26", 9.994: "9.99", 9.996: "10.0", 25.16: "25.2", 99.96: "100", 808.2: "808",
	} {
		if got := short(v); got != want {
			t.Errorf("%v is written as %q, want %q", v, got, want)
		}
	}
}

func TestChartsAreWellFormedAndHoldTheirText(t *testing.T) {
	records := []record{made(noLoad, fbpp, 1, 667, 268<<20), made(noLoad, stock, 1, 30789, 7455<<20)}
	rows := summarize(plannedOnce(allLoads(), allMethods()), records)
	for _, c := range allCharts() {
		if len(c.panels(rows)) == 0 {
			if _, err := c.draw(rows, ""); err == nil {
				t.Errorf("%s was drawn without figures", c.Name)
			}
			continue
		}
		svg, err := c.draw(rows, "of <what>")
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(svg))
		for err == nil {
			_, err = d.Token()
		}
		if err != io.EOF {
			t.Errorf("%s: %v", c.Name, err)
		}
		for _, text := range []string{
			c.Title, "of &lt;what&gt;", "free-page-reporting", "churning", "not run",
		} {
			if !bytes.Contains(svg, []byte(text)) {
				t.Errorf("%s does not say %q", c.Name, text)
			}
		}
	}
}

// The names of methods end beside the bars, also in a font that is wider than the one
// with which the library measures text.
func TestNamesEndBesideTheBars(t *testing.T) {
	records := []record{made(noLoad, fbpp, 1, 667, 268<<20), made(noLoad, stock, 1, 30789, 7455<<20)}
	svg, err := allCharts()[0].draw(summarize(plannedOnce(allLoads(), allMethods()), records), "")
	if err != nil {
		t.Fatal(err)
	}
	anchored := regexp.MustCompile(`<text x="112" text-anchor="end"[^>]*>([^<]*)<`)
	names := make(map[string]int)
	for _, m := range anchored.FindAllSubmatch(svg, -1) {
		names[string(m[1])]++
	}
	want := make(map[string]int)
	for _, m := range allMethods() {
		want[string(m)] = 3 // rows of panels
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestColours(t *testing.T) {
	if r, g, b, a := rgb(0x12ab00).RGBA(); r != 0x1212 || g != 0xabab || b != 0 || a != 0xffff {
		t.Errorf("got %#x %#x %#x %#x", r, g, b, a)
	}
}

func TestPublishCopiesTheReportAndItsCharts(t *testing.T) {
	records := []record{made(noLoad, fbpp, 1, 1, 1)}
	r := newReport(&results{Records: records, Sizes: mustSizes(t, 64<<10, 0)},
		plannedOnce([]load{noLoad}, []method{fbpp}))
	dir := t.TempDir()
	if err := r.publish(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "benchmarks-report.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, part := range strings.Split(string(text), "](")[1:] {
		path, _, _ := strings.Cut(part, ")")
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Error(err)
		}
		shown++
	}
	if shown != len(r.charts()) || shown == 0 {
		t.Errorf("%d of %d charts are shown", shown, len(r.charts()))
	}
}

func TestRedrawMakesTheSameReportAndCharts(t *testing.T) {
	cases := plannedOnce([]load{noLoad, fresh}, []method{stock, fbpp})
	var records []record
	for i, run := range schedule(cases) {
		records = append(records, made(run.Load, run.Method, run.Round, int64(i+1), int64(i+2)))
	}
	r := newReport(&results{Records: records, Sizes: mustSizes(t, 64<<10, 0)}, cases)
	dir := t.TempDir()
	if err := r.publish(dir); err != nil {
		t.Fatal(err)
	}
	files := []string{"benchmarks-report.md"}
	for _, c := range r.charts() {
		files = append(files, filepath.Join(imageDir, c.file()))
	}
	var published [][]byte
	for _, f := range files {
		published = append(published, mustRead(t, filepath.Join(dir, f)))
		if err := os.Remove(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	if err := redraw(dir); err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		if !bytes.Equal(mustRead(t, filepath.Join(dir, f)), published[i]) {
			t.Errorf("%s is another one", f)
		}
	}
	if err := redraw(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without figures: %v", err)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
