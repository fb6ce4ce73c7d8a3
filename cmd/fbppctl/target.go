// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

// defaultTimeout is far above the time that a running fbppd needs for an answer. A
// census of a large guest may take as long as censusTimeout.
const (
	defaultTimeout = 5 * time.Second
	censusTimeout  = time.Minute
)

// errSilent ends a command when fbppd does not answer in time.
var errSilent = errors.New("fbppd does not answer")

// target is what all commands have on their command line: whom they ask, and how
// they print.
type target struct {
	vm, path string
	host     host
	asJSON   bool
	timeout  time.Duration
	flags    *pflag.FlagSet
}

// newTarget adds the flags of all commands.
func newTarget(fs *pflag.FlagSet) *target {
	t := &target{flags: fs}
	fs.StringVar(&t.vm, "vm", "", "ask the fbppd of the virtual machine `NAME`, of fbppd@NAME.service")
	fs.StringVar(&t.path, "control-path", "",
		"ask the fbppd with the control socket at `PATH` (or $FBPP_CONTROL_PATH)")
	fs.StringVar((*string)(&t.host), "run-dir", "/run/fbpp",
		"`FOLDER` that has a folder with the sockets of each virtual machine")
	fs.BoolVar(&t.asJSON, "json", false, "print JSON, a document a line")
	cli.Duration(fs, &t.timeout, "timeout", defaultTimeout, time.Millisecond, cli.NoMax,
		"longest `time` to wait for an answer; of watch, for the first one "+
			"(census, estimate, localise and libvirt: 1m; sample: its interval and 3m; metrics: 2s)")
	return t
}

// socket returns the path of the control socket that was named, or a cli.UsageError.
func (t *target) socket() (string, error) {
	path, name := t.path, "--control-path"
	switch {
	case t.vm != "" && t.path != "":
		return "", cli.Usagef("give either --vm or --control-path")
	case t.vm != "":
		if err := checkName(t.vm); err != nil {
			return "", cli.Usagef("--vm: %w", err)
		}
		path, name = t.host.socket(t.vm), "--vm"
	case path == "":
		path, name = os.Getenv("FBPP_CONTROL_PATH"), "$FBPP_CONTROL_PATH"
	}
	if path == "" {
		return "", cli.Usagef("give --vm or --control-path; fbppctl list shows this host's machines")
	}
	if err := unixsock.Check(path); err != nil {
		return "", cli.Usagef("%s: %w", name, err)
	}
	return path, nil
}

// ofHost returns a cli.UsageError where one fbppd was named for a command that is
// about all of the host.
func (t *target) ofHost() error {
	if t.vm != "" || t.path != "" {
		return cli.Usagef("this command is about all machines: it takes neither --vm nor --control-path")
	}
	return nil
}

// ask runs f with a client of the fbppd that was named. The context of f ends after
// the timeout, unless f calls heard before.
func (t *target) ask(
	ctx context.Context, f func(ctx context.Context, c *control.Client, heard func()) error,
) error {
	path, err := t.socket()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(t.timeout, func() { cancel(errSilent) })
	defer timer.Stop()
	err = f(bounded, control.NewClient(path), func() { timer.Stop() })
	if err != nil && errors.Is(context.Cause(bounded), errSilent) {
		return fmt.Errorf("%w on %s within %v", errSilent, path, t.timeout)
	}
	return err
}

// show prints v as JSON, or by text for a person.
func (t *target) show(out io.Writer, v any, text func(io.Writer) error) error {
	return t.showAll(out, []any{v}, text)
}

// showAll is show for values that each have a line of JSON.
func (t *target) showAll(out io.Writer, all []any, text func(io.Writer) error) error {
	if !t.asJSON {
		return text(out)
	}
	lines := json.NewEncoder(out)
	for _, v := range all {
		if err := lines.Encode(v); err != nil {
			return fmt.Errorf("print JSON: %w", err)
		}
	}
	return nil
}
