// SPDX-License-Identifier: Apache-2.0

// Command demo migrates a guest twice, once as any QEMU does and once without
// its free memory, and prints both beside the least that had to be sent. The
// figures go to build/demo.json as well.
//
// Run it by "make demo", which builds what it needs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	kernel := flags.String("kernel", string(guest.Linux6_12), "kernel `series` of the guest: 6.1 or 6.12")
	memory := flags.Int("memory", 0, "the guest's memory in `MiB`; 0: 8192, or what this machine has room for")
	if err := flags.Parse(args); err != nil {
		return err
	}
	out := newScreen(os.Stdout)
	plan, err := makePlan(*memory)
	if err != nil {
		return err
	}
	plan.series = guest.Series(*kernel)
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
