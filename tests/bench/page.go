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

// write writes the report's files into dir: Markdown, a picture for each
// chart, and one page with all of it.
func (r *report) write(dir string) error {
	if err := writeFile(filepath.Join(dir, "report.md"), []byte(r.markdown())); err != nil {
		return err
	}
	var pictures []picture
	for _, c := range allCharts() {
		svg, err := c.draw(r.Rows)
		if err != nil {
			return err
		}
		if svg == nil {
			continue
		}
		if err := writeFile(filepath.Join(dir, c.Name+".svg"), svg); err != nil {
			return err
		}
		// Inside a page the XML declaration is an error.
		if i := bytes.Index(svg, []byte("<svg")); i > 0 {
			svg = svg[i:]
		}
		pictures = append(pictures, picture{c, template.HTML(svg)})
	}
	page, err := r.page(pictures)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "report.html"), page)
}

// page returns the report as one HTML page that needs nothing else.
func (r *report) page(pictures []picture) ([]byte, error) {
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return nil, fmt.Errorf("write page: %w", err)
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{
		"Summary": r.summary(), "Failures": r.failures(), "Targets": r.Targets,
		"Pictures": pictures, "Tables": append(r.tables(), r.exchangeTable()), "Legend": legend,
	})
	if err != nil {
		return nil, fmt.Errorf("write page: %w", err)
	}
	return out.Bytes(), nil
}
