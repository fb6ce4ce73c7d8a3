// SPDX-License-Identifier: Apache-2.0

// Command fbppctl shows the state of a running fbppd, and switches it on and off.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

func main() { cli.Main("fbppctl", run) }

const usage = `usage: fbppctl --control-path=PATH [--json] COMMAND

commands:
  status    show the device, its driver and the last migration's request
  enable    let migrations skip the guest's free memory
  disable   let migrations send all memory
  cache     show what becomes of cold page cache; with send or last, set it
  watch     show the status now and at every change
  history   show what became of the newest migrations
  census    show what the guest uses its memory for, as seen from the host
  estimate  show what a migration would send now, by what it leaves out

options:
`

// defaultTimeout is far above the time that a running fbppd needs for an answer. A
// census of a large guest may take as long as censusTimeout.
const (
	defaultTimeout = 5 * time.Second
	censusTimeout  = time.Minute
)

// errSilent ends a command when fbppd does not answer in time.
var errSilent = errors.New("fbppd does not answer")

// options is the parsed command line.
type options struct {
	path    string
	asJSON  bool
	timeout time.Duration
	links   links
	command string
	policy  string // of cache
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{links: links{1, 10, 25}}
	fs := flag.NewFlagSet("fbppctl", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.path, "control-path", os.Getenv("FBPP_CONTROL_PATH"),
		"fbppd's control socket at `PATH` (or $FBPP_CONTROL_PATH)")
	fs.BoolVar(&o.asJSON, "json", false, "print JSON, a document a line")
	cli.Duration(fs, &o.timeout, "timeout", defaultTimeout, time.Millisecond, cli.NoMax,
		"longest `time` to wait for an answer; of watch, for the first one (census and estimate: 1m)")
	fs.Var(&o.links, "bandwidth", "what estimate is made for, in `Gbit/s`, separated by commas")
	if err := cli.Parse(fs, args, out); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() == 0:
		return o, cli.Usagef("no command")
	case fs.NArg() == 2 && fs.Arg(0) == "cache":
		o.policy = fs.Arg(1)
	case fs.NArg() > 1:
		return o, cli.Usagef("unexpected argument %q", fs.Arg(1))
	}
	if o.path == "" {
		return o, cli.Usagef("--control-path is missing")
	}
	if err := unixsock.Check(o.path); err != nil {
		return o, cli.Usagef("--control-path: %w", err)
	}
	o.command = fs.Arg(0)
	if o.looks() && o.timeout == defaultTimeout {
		o.timeout = censusTimeout
	}
	return o, nil
}

// looks says whether fbppd reads the guest's memory for the command.
func (o options) looks() bool { return o.command == "census" || o.command == "estimate" }

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(o.timeout, func() { cancel(errSilent) })
	show := func(s device.Status) error {
		timer.Stop()
		if o.asJSON {
			return json.NewEncoder(out).Encode(s)
		}
		return print(out, s)
	}
	switch {
	case o.looks():
		err = o.census(bounded, out)
	case o.command == "history":
		err = o.history(bounded, out)
	default:
		err = o.do(bounded, show)
	}
	switch {
	case ctx.Err() != nil && o.command == "watch":
		return nil // the user ended the watch by a signal
	case err != nil && errors.Is(context.Cause(bounded), errSilent):
		return fmt.Errorf("%w on %s within %v", errSilent, o.path, o.timeout)
	}
	return err
}

// do runs the command, and calls show with each status that fbppd returns.
func (o options) do(ctx context.Context, show func(device.Status) error) error {
	c := control.NewClient(o.path)
	one := func(s device.Status, err error) error {
		if err != nil {
			return err
		}
		return show(s)
	}
	switch o.command {
	case "status":
		return one(c.Status(ctx))
	case "enable":
		return one(c.SetEnabled(ctx, true))
	case "disable":
		return one(c.SetEnabled(ctx, false))
	case "cache":
		return one(cache(ctx, c, o.policy))
	case "watch":
		return c.Watch(ctx, show)
	default:
		return cli.Usagef("unknown command %q", o.command)
	}
}
