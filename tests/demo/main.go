// SPDX-License-Identifier: Apache-2.0

// Command demo migrates a guest twice, once as stock QEMU does and once without its free
// memory. It prints the figures of both beside the least that had to be sent, and writes
// them to build/demo.json.
//
// Run it by "make demo", which builds what it needs.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

func main() { cli.Main("demo", run) }

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	series := guest.Linux6_12
	cli.Var(flags, &series, "kernel",
		fmt.Sprintf("kernel `series` of the guest, one of %v", guest.AllSeries()))
	memory := flags.Int("memory", 0,
		"the guest's memory in `MiB`; 0: 8192, or what this machine has room for")
	if err := cli.Parse(flags, args, stdout); err != nil {
		return err
	}
	plan, err := makePlan(*memory)
	if err != nil {
		return err
	}
	plan.series = series
	out := newScreen(stdout, isTerminal(os.Stdout))
	parts, err := lab.Open(ctx, out.step)
	if err != nil {
		return err
	}
	out.line("%s", parts.Version)
	out.line("%s", plan)
	s := &scenario{lab: parts, plan: plan, out: out}
	results, err := s.run(ctx)
	if err != nil {
		return err
	}
	results.print(out)
	path := filepath.Join(parts.Root, "build", "demo.json")
	if err := results.write(path); err != nil {
		return err
	}
	out.line("\nThe same figures are in %s.", path)
	return results.verdict()
}
