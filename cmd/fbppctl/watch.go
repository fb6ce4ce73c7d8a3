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
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// watchRetry is how often a watch looks for an fbppd that has gone.
const watchRetry = 500 * time.Millisecond

// seen is a line of watch --json: a status, or why there is none.
type seen struct {
	Time time.Time `json:"time"`
	*device.Status
	Error string `json:"error,omitempty"`
}

func watchCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "watch", Short: "show the status now and at every change", Args: cli.NoArgs,
		Long: `watch shows the status with the time, now and at every change. When fbppd ends, it
says so once, and goes on when fbppd is there again. A signal ends it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := t.watch(cmd.Context(), cmd.OutOrStdout())
			if cmd.Context().Err() != nil {
				return nil // the user ended the watch by a signal
			}
			return err
		},
	}
}

// watch prints what there is to see until ctx ends or nothing can be printed. An
// fbppd that never answered is an error; one that has gone is waited for.
func (t *target) watch(ctx context.Context, out io.Writer) error {
	return t.ask(ctx, func(ctx context.Context, c *control.Client, heard func()) error {
		var lost, printed error // why fbppd was lost, and why nothing can be printed
		answered := false
		for {
			err := c.Watch(ctx, func(s device.Status) error {
				heard()
				answered, lost = true, nil
				printed = t.showSeen(out, seen{Time: time.Now(), Status: &s})
				return printed
			})
			if !answered || printed != nil || ctx.Err() != nil {
				return err
			}
			if lost == nil {
				lost = err
				gone := seen{Time: time.Now(), Error: err.Error()}
				if err := t.showSeen(out, gone); err != nil {
					return err
				}
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(watchRetry):
			}
		}
	})
}

func (t *target) showSeen(out io.Writer, s seen) error {
	return t.show(out, s, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%-10s %s\n", "time", s.Time.Format(time.RFC3339))
		if s.Status != nil {
			return errors.Join(err, print(out, *s.Status))
		}
		_, lost := fmt.Fprintf(out, "%-10s %s\n\n", "fbppd", s.Error)
		return errors.Join(err, lost)
	})
}
