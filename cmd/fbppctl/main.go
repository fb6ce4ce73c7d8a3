// SPDX-License-Identifier: Apache-2.0

// Command fbppctl shows the state of running fbppds, and switches them on and off.
package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

func main() { cli.Main("fbppctl", run) }

// about is what --help and the manual page begin with.
const about = `fbppctl shows what the fbppd of a virtual machine does, and switches it on and off.
Name the machine with --vm, or fbppd's control socket with --control-path.

Exit status: 0 when all was done, 1 after a failure, 2 for a wrong command line; of check
3 where a migration would find no free memory now.`

// newRoot returns the program's commands, each of a file of its own.
func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "fbppctl", Short: "shows and switches fbppd", Long: about}
	t := newTarget(root.PersistentFlags())
	root.AddCommand(
		statusCommand(t), switchCommand(t, true), switchCommand(t, false), cacheCommand(t),
		watchCommand(t), checkCommand(t), listCommand(t), historyCommand(t), censusCommand(t),
		sampleCommand(t), estimateCommand(t), localiseCommand(t), metricsCommand(t), libvirtCommand(t),
		programCommand(t), reportCommand(t), arrivalCommand(t),
	)
	return root
}

func run(ctx context.Context, args []string, out io.Writer) error {
	return cli.Execute(ctx, newRoot(), args, cli.Printable(out))
}
