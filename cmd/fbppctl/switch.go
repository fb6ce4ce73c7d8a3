// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// switchCommand returns the command enable or disable.
func switchCommand(t *target, on bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: "enable", Short: "let migrations skip the guest's free memory", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.showStatus(cmd, func(c *control.Client, ctx context.Context) (device.Status, error) {
				return c.SetEnabled(ctx, on)
			})
		},
	}
	if !on {
		cmd.Use, cmd.Short = "disable", "let migrations send all memory"
	}
	return cmd
}
