// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

func statusCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "show the device, its driver and the last migration's request",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.showStatus(cmd, (*control.Client).Status)
		},
	}
}

// showStatus prints the status that ask returns.
func (t *target) showStatus(
	cmd *cobra.Command, ask func(*control.Client, context.Context) (device.Status, error),
) error {
	return t.ask(cmd.Context(), func(ctx context.Context, c *control.Client, _ func()) error {
		s, err := ask(c, ctx)
		if err != nil {
			return err
		}
		return t.show(cmd.OutOrStdout(), s, func(out io.Writer) error { return print(out, s) })
	})
}
