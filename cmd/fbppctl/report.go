// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/domain"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/report"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/vhostuser/program/version"
)

// reporting is a command line of report.
type reporting struct {
	*target
	qemu   // not given if nothing is measured
	rounds int
	links  links
	limit  time.Duration
	output string // the files' path, without their ending
	join   string // the path of an earlier report
}

func reportCommand(t *target) *cobra.Command {
	r := &reporting{target: t}
	cmd := &cobra.Command{
		Use: "report", Short: "measure a machine's migrations, for a report to publish",
		Args: cli.NoArgs,
		Long: `report writes a JSON document and an HTML page: what this host, QEMU and guest are, and
what became of the machine's migrations. They name no host, machine, path, address or UUID.

With --qmp or --domain it makes migrations by itself, by turns without and with hints. They go to
this very host, where all is thrown away, and the guest goes on here: it stands still for a moment
at the end of each, as at any migration. Do not do that to a guest that matters.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	fs := cmd.Flags()
	r.qemu.addFlags(fs)
	fs.IntVar(&r.rounds, "rounds", 3, "`N` migrations of each kind")
	fs.Var(&r.links, "bandwidth", "the most that they may send, in `Gbit/s`, separated by commas "+
		"(default: no limit)")
	cli.Duration(fs, &r.limit, "limit", 5*time.Minute, time.Second, cli.NoMax,
		"longest `time` of one migration; then it is cancelled")
	fs.StringVar(&r.output, "output", "fbpp-report", "write `PATH`.json and PATH.html")
	fs.StringVar(&r.join, "join", "", "put the migrations of an earlier report, a JSON `FILE`, first")
	return cmd
}

// check refuses what cannot be done before anything is measured.
func (r *reporting) check() error {
	if err := r.qemu.check(); err != nil {
		return err
	}
	switch {
	case r.join != "" && !r.given():
		return cli.Usagef("--join is for what --qmp or --domain measures")
	case r.rounds < 1 || r.rounds > 100:
		return cli.Usagef("--rounds: it is not between 1 and 100")
	}
	if r.domain != "" && r.vm == "" && r.path == "" {
		var err error
		if r.vm, err = domain.Instance(r.domain); err != nil {
			return cli.Usagef("--domain: %w", err)
		}
	}
	if _, err := r.socket(); err != nil {
		return err
	}
	for _, path := range []string{r.output + ".json", r.output + ".html"} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is there already: give another --output", path)
		}
	}
	return nil
}

func (r *reporting) run(cmd *cobra.Command) error {
	if err := r.check(); err != nil {
		return err
	}
	return r.ask(cmd.Context(), func(ctx context.Context, c *control.Client, heard func()) error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		past, err := c.History(ctx)
		if err != nil {
			return err
		}
		heard()
		doc := newReport(s, past)
		if err := r.measure(ctx, cmd.OutOrStdout(), c, doc); err != nil {
			return err
		}
		return r.write(cmd.OutOrStdout(), doc)
	})
}

// newReport returns what is known without QEMU.
func newReport(s device.Status, past []device.Migration) *report.Report {
	doc := &report.Report{
		Version: report.Version, FBPP: version.Line("fbppctl"), Host: report.ThisHost(),
		Measured: []report.Migration{}, History: report.PastOf(past),
		VM: report.VM{
			Kernel: "unknown", Memory: []report.Memory{}, Cache: string(s.Cache),
			Sources: append([]string{}, s.Sources...),
		},
	}
	switch {
	case s.Driver != nil:
		doc.VM.Kernel = report.Release(s.Driver.Release)
	case s.Kernel != nil && s.Kernel.Release != "":
		doc.VM.Kernel = report.Release(s.Kernel.Release)
	}
	return doc
}

// measure makes the migrations, where QEMU can be reached.
func (r *reporting) measure(
	ctx context.Context, out io.Writer, c *control.Client, doc *report.Report,
) error {
	if !r.given() {
		return nil
	}
	q, err := r.open(ctx, r.timeout)
	if err != nil {
		return err
	}
	defer q.close()
	if err := doc.Describe(ctx, q, q.dirtyRing); err != nil {
		return err
	}
	if r.join != "" {
		earlier, err := os.ReadFile(r.join)
		if err != nil {
			return fmt.Errorf("read the earlier report: %w", err)
		}
		if err := doc.Join(earlier); err != nil {
			return err
		}
	}
	plan := report.Plan{
		Rounds: r.rounds, Gbit: r.links, Limit: r.limit,
		Ready: func(ctx context.Context) error { return awaitReady(ctx, c) },
		Progress: func(line string) {
			if !r.asJSON {
				fmt.Fprintln(out, line)
			}
		},
	}
	if len(plan.Gbit) == 0 {
		plan.Gbit = []float64{0}
	}
	measured, err := report.Measure(ctx, q, plan)
	doc.Measured = append(doc.Measured, measured...)
	return err
}

// awaitReady waits until fbppd could say what is free. After a migration that did not leave
// the host a guest's driver needs a moment.
func awaitReady(ctx context.Context, c *control.Client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("it stays so"))
	defer cancel()
	for {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		is := readinessOf(s)
		if is.Ready {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for fbppd: %s: %w", strings.Join(is.Reasons, "; "), context.Cause(ctx))
		}
	}
}

// write writes the files, and prints what is in them.
func (r *reporting) write(out io.Writer, doc *report.Report) error {
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("make the report: %w", err)
	}
	page, err := doc.Page()
	if err != nil {
		return err
	}
	for path, content := range map[string][]byte{
		r.output + ".json": append(text, '\n'), r.output + ".html": page,
	} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return r.show(out, doc, func(out io.Writer) error { return r.printReport(out, doc) })
}

func (r *reporting) printReport(out io.Writer, doc *report.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(doc.Measured) > 0 {
		fmt.Fprintln(w, "method\tGbit/s\tcompleted\thints\tskipped\tsent\ttotal\tdowntime")
	}
	for _, l := range doc.Lines() {
		fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\t%.1f MiB\t%.1f MiB\t%d ms\t%d ms\n", l.Method,
			choose(l.Gbit == 0, "-", fmt.Sprint(l.Gbit)), l.Done, l.Tried, orDash(l.Hints),
			mib(l.Skipped), mib(l.Transferred), l.TotalMS, l.DowntimeMS)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	_, err := fmt.Fprintf(out, "The report is in %s.json and %s.html. Look at them, and send them "+
		"in as docs/field.md says.\n", r.output, r.output)
	return err
}
