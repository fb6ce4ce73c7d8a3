// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"path/filepath"
)

//go:embed page.html.tmpl
var pageSource string

// picture is a chart that was drawn.
type picture struct {
	chart
	SVG template.HTML
}

// imageDir is the folder of the pictures, beside the Markdown that shows them.
const imageDir = "img"

// write writes the report's files into dir: Markdown, its pictures, and one
// page with all of it.
func (r *report) write(dir string) error {
	pictures, err := r.draw(filepath.Join(dir, imageDir))
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "report.md"), []byte(r.markdown())); err != nil {
		return err
	}
	page, err := r.page(pictures)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "report.html"), page)
}

// draw draws the charts into dir.
func (r *report) draw(dir string) ([]picture, error) {
	var pictures []picture
	for _, c := range r.charts() {
		svg, err := c.draw(r.Rows, r.caption())
		if err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(dir, c.file()), svg); err != nil {
			return nil, err
		}
		// Inside a page the XML declaration is an error.
		if i := bytes.Index(svg, []byte("<svg")); i > 0 {
			svg = svg[i:]
		}
		pictures = append(pictures, picture{c, template.HTML(svg)})
	}
	return pictures, nil
}

// page returns the report as one HTML page without external files.
func (r *report) page(pictures []picture) ([]byte, error) {
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return nil, fmt.Errorf("write page: %w", err)
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{
		"Summary": r.summary(), "Failures": r.failures(), "Targets": r.Targets,
		"Pictures": pictures, "Tables": append(r.tables(), r.furtherTables()...), "Legend": legend,
	})
	if err != nil {
		return nil, fmt.Errorf("write page: %w", err)
	}
	return out.Bytes(), nil
}
