// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

// output says where and in what format results are written.
type output struct {
	format, jsonFile string
}

func (o *output) flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.format, "format", "tap", "write results to stdout as `tap|json`")
	fs.StringVar(&o.jsonFile, "json", "", "also write results to `FILE`, as JSON")
}

// sinks opens the sinks for the results. The caller calls the function at the end,
// which closes them.
func (o *output) sinks(out io.Writer) ([]report.Sink, func() error, error) {
	var sinks []report.Sink
	switch o.format {
	case "tap":
		sinks = append(sinks, report.NewTAP(out))
	case "json":
		sinks = append(sinks, report.NewJSON(out))
	default:
		return nil, nil, cli.Usagef("--format: %q is neither tap nor json", o.format)
	}
	if o.jsonFile == "" {
		return sinks, func() error { return nil }, nil
	}
	file, err := os.Create(o.jsonFile)
	if err != nil {
		return nil, nil, fmt.Errorf("write results: %w", err)
	}
	return append(sinks, report.NewJSON(file)), file.Close, nil
}

// listRules prints the rules of all suites, a line each.
func listRules(out io.Writer) error {
	for _, s := range suites() {
		for _, r := range s.rules() {
			_, err := fmt.Fprintf(out, "%-8s %-16s %s [%s]\n", s.name, r.ID, r.Text, r.Source)
			if err != nil {
				return err
			}
		}
	}
	return nil
}
