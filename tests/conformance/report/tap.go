// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// NewTAP returns a Sink that writes the Test Anything Protocol, version 14. A
// rule that does not apply is "ok" with the directive SKIP. Advice that is not
// followed is "not ok" with the directive TODO, which readers of TAP do not
// count as a failure.
func NewTAP(w io.Writer) Sink { return &tap{w: w} }

type tap struct {
	w io.Writer
	n int
}

func (t *tap) Begin(suite string, n int) error {
	_, err := fmt.Fprintf(t.w, "TAP version 14\n1..%d # %s\n", n, suite)
	return err
}

func (t *tap) Add(r Result) error {
	t.n++
	var b strings.Builder
	if r.Outcome == Fail || r.Outcome == Error {
		b.WriteString("not ")
	}
	fmt.Fprintf(&b, "ok %d - %s %s", t.n, r.ID, escape(r.Text))
	switch {
	case r.Outcome == Skip:
		fmt.Fprintf(&b, " # SKIP %s", escape(oneLine(r.Detail)))
	case r.Outcome == Fail && r.Advice:
		b.WriteString(" # TODO advice")
	}
	b.WriteByte('\n')
	if r.Outcome == Fail || r.Outcome == Error {
		diagnose(&b, r)
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

// diagnose writes TAP's YAML block. Strings are quoted as Go does it, which is valid
// in a double-quoted scalar of YAML.
func diagnose(b *strings.Builder, r Result) {
	fmt.Fprintf(b, "  ---\n  outcome: %v\n  seen: %s\n  source: %s\n",
		r.Outcome, strconv.Quote(r.Detail), strconv.Quote(r.Source))
	if len(r.Notes) > 0 {
		b.WriteString("  notes:\n")
	}
	for _, note := range r.Notes {
		fmt.Fprintf(b, "    - %s\n", strconv.Quote(note))
	}
	b.WriteString("  ...\n")
}

func (t *tap) End(s Summary, err error) error {
	if err != nil {
		_, err = fmt.Fprintf(t.w, "Bail out! %s\n", oneLine(err.Error()))
		return err
	}
	_, err = fmt.Fprintf(t.w, "# %v\n", s)
	return err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// escape escapes text, so that a parser of TAP finds no directive in it.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `#`, `\#`).Replace(s)
}
