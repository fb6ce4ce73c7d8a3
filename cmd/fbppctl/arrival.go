// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

// arrival is what fbppctl arrival prints as JSON: how far memory has come that is loaded from a
// snapshot, or from a pool, while the guest runs. Sizes are in bytes.
type arrival struct {
	State     string  `json:"state"`
	Total     uint64  `json:"total"`     // what is to be brought
	Remaining uint64  `json:"remaining"` // what of it is in the file only
	Read      uint64  `json:"read"`
	Free      uint64  `json:"free"`        // what is not brought, as the guest had it free
	Faults    uint64  `json:"faults"`      // pages that somebody waited for
	Zero      uint64  `json:"zero_faults"` // those of them that are not in the file
	Seconds   float64 `json:"seconds"`     // since it began, or that it took
	Why       string  `json:"why,omitempty"`
}

// The states of an arrival.
const (
	arriving = "arriving"
	held     = "held"    // by migrate-pause
	failing  = "failing" // the file cannot be read
	complete = "complete"
)

// errNoArrival says that a machine's memory is where it was made.
var errNoArrival = errors.New("no memory arrives at this machine, nor has any:" +
	" see docs/operating.md, \"Snapshots that load while the guest runs\", and docs/handover.md")

// arrivalInterval is the time between two lines with --wait.
const arrivalInterval = time.Second

func arrivalCommand(t *target) *cobra.Command {
	var q qemu
	wait := false
	cmd := &cobra.Command{
		Use: "arrival", Short: "show how far memory is that arrives while the guest runs",
		Args: cli.NoArgs,
		Long: `arrival asks the QEMU of a machine that runs while its memory arrives,
from a snapshot or from a pool: what is still there only, what need not come as it is free, and
how many pages the guest had to wait for. It asks no fbppd. If the file cannot be read the guest
is paused until somebody says "cont", and --wait goes on.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.ofHost(); err != nil {
				return cli.Usagef("this command asks QEMU: it takes neither --vm nor --control-path")
			}
			if err := q.check(); err != nil {
				return err
			}
			if !q.given() {
				return cli.Usagef("give --qmp or --domain")
			}
			m, err := q.open(cmd.Context(), t.timeout)
			if err != nil {
				return err
			}
			defer m.close()
			return t.arrival(cmd.Context(), cmd.OutOrStdout(), m, wait)
		},
	}
	q.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&wait, "wait", false, "go on until all of it has arrived")
	return cmd
}

// arrival shows the figures, and again until all is there if it is to wait.
func (t *target) arrival(ctx context.Context, out io.Writer, m *reached, wait bool) error {
	for {
		a, err := t.queryArrival(ctx, m)
		if err != nil {
			return err
		}
		if err := t.show(out, a, a.print); err != nil || !wait || a.State == complete {
			return err
		}
		select {
		case <-time.After(arrivalInterval):
		case <-ctx.Done():
			return fmt.Errorf("wait for memory to arrive: %w", context.Cause(ctx))
		}
	}
}

// queryArrival asks QEMU, which has to answer in time.
func (t *target) queryArrival(ctx context.Context, m *reached) (*arrival, error) {
	silent := fmt.Errorf("QEMU has not answered within %v", t.timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, silent)
	defer cancel()
	var figures migration
	if err := m.Execute(ctx, "query-migrate", nil, &figures); err != nil {
		if context.Cause(ctx) == silent {
			err = silent
		}
		return nil, err
	}
	return figures.arrival()
}

// migration is what QEMU says of one.
type migration struct {
	Status string
	Error  string `json:"error-desc"`
	Load   *struct {
		Total, Skipped, Remaining, Read, Faults uint64

		Zero         uint64 `json:"zero-faults"`
		Milliseconds uint64 `json:"time"`
	} `json:"fast-snapshot-load"`
}

// arrival tells how far memory is. The status may be that of a later migration, which this machine
// makes itself.
func (m *migration) arrival() (*arrival, error) {
	l := m.Load
	if l == nil {
		return nil, errNoArrival
	}
	a := &arrival{Total: l.Total, Free: l.Skipped, Remaining: l.Remaining, Read: l.Read,
		Faults: l.Faults, Zero: l.Zero, Seconds: float64(l.Milliseconds) / 1000, State: complete}
	begun := l.Remaining > 0
	switch {
	case m.Status == "failed" && (begun || l.Total == 0):
		return nil, fmt.Errorf("memory does not arrive, as the migration has failed: %s", m.Error)
	case !begun && (l.Total > 0 || m.Status == "completed"):
	case begun && m.Error != "":
		a.State, a.Why = failing, m.Error
	case m.Status == "postcopy-paused":
		a.State = held
	default:
		a.State = arriving
	}
	return a, nil
}

// print prints the figures for a person.
func (a *arrival) print(out io.Writer) error {
	state := a.State
	if a.Why != "" {
		state += ": " + a.Why + "; \"cont\" tries again"
	}
	free := ""
	if a.Free > 0 {
		free = fmt.Sprintf(" %.1f MiB were free;", mib(a.Free))
	}
	_, err := fmt.Fprintf(out, "%s: %.1f of %.1f MiB remain, %.1f MiB read in %.1f s;%s"+
		" %d pages were waited for, %d of them zero\n",
		state, mib(a.Remaining), mib(a.Total), mib(a.Read), a.Seconds, free, a.Faults, a.Zero)
	return err
}
