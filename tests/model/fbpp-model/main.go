// SPDX-License-Identifier: Apache-2.0

// Command fbpp-model checks all variants of the model, and leaves the
// counterexamples in a folder.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/model"
)

func main() { cli.Main("fbpp-model", run) }

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := pflag.NewFlagSet("fbpp-model", pflag.ContinueOnError)
	dir := flags.String("dir", "build/model", "`folder` for the counterexamples")
	if err := cli.Parse(flags, args, stdout); err != nil {
		return err
	}
	return check(ctx, *dir, stdout)
}

// check checks the variants in parallel, and prints a line for each, in order, as soon as
// its result is known.
func check(ctx context.Context, dir string, stdout io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	variants := model.Variants()
	lines := make([]chan string, len(variants))
	shortest := make([][]string, len(variants))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU() + 1) // one more for the goroutine that prints
	for i := range lines {
		lines[i] = make(chan string, 1)
	}
	group.Go(func() error {
		for _, line := range lines {
			select {
			case s := <-line:
				fmt.Fprintln(stdout, s)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for i, v := range variants {
		group.Go(func() error {
			line, steps, err := one(ctx, v, dir)
			if line != "" {
				lines[i] <- line
			}
			shortest[i] = steps
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	show(stdout, variants, shortest)
	return nil
}

// one checks v, writes its counterexample to dir, and returns a line with the result and the
// counterexample.
func one(ctx context.Context, v model.Variant, dir string) (string, []string, error) {
	work, err := os.MkdirTemp("", "fbpp-model-")
	if err != nil {
		return "", nil, fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(work)
	r, err := model.Check(ctx, v, work)
	if errors.Is(err, model.ErrNoSpin) {
		return "", nil, err
	} else if err != nil {
		return "", nil, fmt.Errorf("check %s: %w", v.Name, err)
	}
	path := filepath.Join(dir, v.Name+".txt")
	verdict, where := "holds", ""
	if len(r.Trace) > 0 {
		verdict, where = "LOSES", "  "+path
		if err := os.WriteFile(path, []byte(strings.Join(r.Trace, "\n")+"\n"), 0o644); err != nil {
			return "", nil, fmt.Errorf("write counterexample: %w", err)
		}
	}
	line := fmt.Sprintf("%s  %-52s %9d states%s", verdict, v.About, r.States, where)
	if v.Loses != (len(r.Trace) > 0) {
		return line, nil, fmt.Errorf("%s is not as it should be: %s", v.Name, line)
	}
	return line, r.Trace, nil
}

// show prints the shortest counterexample.
func show(stdout io.Writer, variants []model.Variant, traces [][]string) {
	best := -1
	for i, t := range traces {
		if len(t) > 0 && (best < 0 || len(t) < len(traces[best])) {
			best = i
		}
	}
	if best >= 0 {
		fmt.Fprintf(stdout, "\nThe shortest: %s.\n\n    %s\n",
			variants[best].About, strings.Join(traces[best], "\n    "))
	}
}
