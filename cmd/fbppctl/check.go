// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// exitNotReady is the exit status of check for a guest that is not ready.
const exitNotReady = 3

// readiness is the answer of check --json.
type readiness struct {
	Ready bool `json:"ready"`
	// Reasons are why a migration would find no free memory. There are none when
	// it is ready.
	Reasons []string `json:"reasons"`
}

func checkCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "say whether a migration would skip free memory now",
		Args: cli.NoArgs,
		Long: `check says whether a migration that began now would be told the guest's free memory, and
if not, why. The exit status is 0 or 3. Nothing is asked of the guest.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.ask(cmd.Context(), func(ctx context.Context, c *control.Client, _ func()) error {
				s, err := c.Status(ctx)
				if err != nil {
					return err
				}
				return t.showReady(cmd.OutOrStdout(), readinessOf(s))
			})
		},
	}
}

// showReady prints r. Where it is not ready, the error has the exit status.
func (t *target) showReady(out io.Writer, r readiness) error {
	err := t.show(out, r, func(out io.Writer) error {
		_, err := fmt.Fprintln(out, choose(r.Ready, "ready", "not ready"))
		return err
	})
	if err != nil || r.Ready {
		return err
	}
	return cli.WithStatus(exitNotReady, errors.New(strings.Join(r.Reasons, "; ")))
}

// readinessOf returns whether free memory would be found. It is enough that one
// source can tell.
func readinessOf(s device.Status) readiness {
	r := readiness{Reasons: []string{}}
	lacks := func(format string, args ...any) {
		r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
	}
	if !s.Enabled {
		lacks("hints are disabled at fbppd")
	}
	if !s.Connected {
		lacks("QEMU is not connected")
	}
	var without []string // what each source lacks
	able := false
	for _, name := range s.Sources {
		why := sourceLacks(s, name)
		able = able || why == ""
		without = append(without, why)
	}
	switch {
	case len(s.Sources) == 0:
		lacks("nobody is asked (--source=none)")
	case !able:
		r.Reasons = append(r.Reasons, without...)
	}
	r.Ready = len(r.Reasons) == 0
	return r
}

// sourceLacks says why a source cannot tell, or "".
func sourceLacks(s device.Status, name string) string {
	switch {
	case name == "introspect" && s.Kernel == nil:
		return "the guest's kernel is not looked for"
	case name == "introspect" && s.Kernel.Release != "" && s.Kernel.Why == "":
		return ""
	case name == "introspect":
		return "the guest's kernel: " + kernel(s.Kernel)
	case s.DriverState == "ready":
		return ""
	case s.DriverState == "refuses" && s.Driver != nil && s.Driver.Reason != "":
		return "the guest's driver refuses: " + s.Driver.Reason
	}
	return "the guest's driver: " + s.DriverState
}
