// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

//go:embed *.pml
var sources embed.FS

const source = "fbpp.pml"

// ErrNoSpin says that the model checker is not installed.
var ErrNoSpin = errors.New(
	"spin is not installed: run tests/scripts/machine.sh, or install Debian's package spin")

// Result is the result of a complete search.
type Result struct {
	States int
	// Trace has a line for each step that leads to a lost write. It is empty if no
	// write is lost. If the variant expects a loss it is the shortest such trace.
	Trace []string
	// Unreached are the places in the model that the search did not reach.
	Unreached []string
}

// Check searches all states of v. It works in dir, which must be empty, and leaves Spin's
// files there. A lost write is no error. It is an error if the search is incomplete, or finds
// a fault of another kind.
func Check(ctx context.Context, v Variant, dir string) (Result, error) {
	if _, err := exec.LookPath("spin"); err != nil {
		return Result{}, ErrNoSpin
	}
	if err := os.CopyFS(dir, sources); err != nil {
		return Result{}, fmt.Errorf("copy the model: %w", err)
	}
	spin := func(options ...string) (string, error) {
		for _, d := range v.Defines {
			options = append(options, "-D"+d)
		}
		return run(ctx, dir, "spin", append(options, source)...)
	}
	if _, err := spin("-a"); err != nil {
		return Result{}, err
	}
	compile, search := []string{"-DSAFETY"}, []string{"-w22", "-m1000000"}
	switch {
	case v.Live: // with fairness a CPU that never stops cannot starve the rest
		compile, search = []string{"-DNFAIR=3"}, append(search, "-a", "-f")
	case v.Loses: // breadth first, to find the shortest trace
		compile = append(compile, "-DBFS")
	}
	compile = append(compile, "-w", "-O1", "-o", "pan", "pan.c")
	if _, err := run(ctx, dir, "gcc", compile...); err != nil {
		return Result{}, err
	}
	out, err := run(ctx, dir, filepath.Join(dir, "pan"), search...)
	if err != nil {
		return Result{}, err
	}
	r, failed, err := parse(out)
	if err != nil || !failed {
		return r, err
	}
	steps, err := spin("-T", "-k", source+".trail")
	if err != nil {
		return r, err
	}
	r.Trace, err = trace(steps)
	return r, err
}

func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w:\n%s", filepath.Base(name), err, out.String())
	}
	return out.String(), nil
}

var (
	found     = regexp.MustCompile(`errors: (\d+)\n`)
	states    = regexp.MustCompile(`(\d+) states, stored`)
	unreached = regexp.MustCompile(`\t(\S+\.pml:\d+, state \d+, ".*")`)
)

// parse reads what pan printed.
func parse(out string) (r Result, failed bool, err error) {
	f, s := found.FindStringSubmatch(out), states.FindStringSubmatch(out)
	for _, incomplete := range []string{
		"Search not completed", "max search depth too small", "out of memory",
	} {
		if strings.Contains(out, incomplete) && (f == nil || f[1] == "0") {
			return r, false, fmt.Errorf("the search is incomplete:\n%s", out)
		}
	}
	if f == nil || s == nil {
		return r, false, fmt.Errorf("pan printed no result:\n%s", out)
	}
	if r.States, err = strconv.Atoi(s[1]); err != nil {
		return r, false, fmt.Errorf("number of states: %w", err)
	}
	for _, m := range unreached.FindAllStringSubmatch(out, -1) {
		if !strings.Contains(m[1], "-end-") {
			r.Unreached = append(r.Unreached, m[1])
		}
	}
	return r, f[1] != "0", nil
}

// trace returns the lines that the model printed before the error, which must be a lost
// write.
func trace(out string) ([]string, error) {
	var steps []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		steps = append(steps, line)
		if strings.HasPrefix(line, "LOST") {
			return steps, nil
		}
	}
	return nil, fmt.Errorf("the error is not a lost write:\n%s", out)
}
