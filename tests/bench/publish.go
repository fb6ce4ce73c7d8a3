// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Files of a published report, beside the folder of its charts.
const (
	publishedReport  = "benchmarks-report.md"
	publishedFigures = "benchmarks-results.json"
)

// publish writes into dir what goes into the repository: the report as Markdown, its
// charts, and the figures of each run, from which redraw makes the other two.
func (r *report) publish(dir string) error {
	if _, err := r.draw(filepath.Join(dir, imageDir)); err != nil {
		return err
	}
	figures, err := json.MarshalIndent(r.results, "", "  ")
	if err != nil {
		return fmt.Errorf("publish figures: %w", err)
	}
	if err := writeFile(filepath.Join(dir, publishedFigures), append(figures, '\n')); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, publishedReport), []byte(r.markdown()))
}

// redraw makes the report and the charts in dir from the figures that are published there.
// After a change of how they look no guest has to be migrated again.
func redraw(dir string) error {
	path := filepath.Join(dir, publishedFigures)
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read figures: %w (-publish writes them)", err)
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("read figures: %s: %w", path, err)
	}
	return newReport(&r, r.cases()).publish(dir)
}

// cases returns the cases that have records, in the order of the matrix.
func (r *results) cases() []planned {
	var found []planned
	for _, p := range slices.Concat(fullMatrix(r.Sizes, 1), quickMatrix()) {
		if slices.ContainsFunc(found, func(have planned) bool { return have.benchCase == p.benchCase }) {
			continue
		}
		p.rounds = 0
		for _, rec := range r.Records {
			if rec.benchCase == p.benchCase {
				p.rounds = max(p.rounds, rec.Round)
			}
		}
		if p.rounds > 0 {
			found = append(found, p)
		}
	}
	return found
}
