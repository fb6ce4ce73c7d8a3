// SPDX-License-Identifier: Apache-2.0

// Command fbppctl shows and switches a running fbppd.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp), ctx.Err() != nil:
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "fbppctl: %v\nTry 'fbppctl --help'.\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "fbppctl: %v\n", err)
		os.Exit(1)
	}
}

// usageError is a wrong command line.
type usageError struct{ error }

const usage = `usage: fbppctl --control-path=PATH [--json] COMMAND

commands:
  status    show the device, its driver and the last migration's request
  enable    let migrations skip the guest's free memory
  disable   let migrations send all memory
  watch     show the status now and at every change

options:
`

func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("fbppctl", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	path := fs.String("control-path", os.Getenv("FBPP_CONTROL_PATH"), "fbppd's control socket at `PATH` (or $FBPP_CONTROL_PATH)")
	asJSON := fs.Bool("json", false, "print JSON, a document a line")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	switch {
	case fs.NArg() == 0:
		return usageError{errors.New("no command")}
	case fs.NArg() > 1:
		return usageError{fmt.Errorf("unexpected argument %q", fs.Arg(1))}
	case *path == "":
		return usageError{errors.New("--control-path is missing")}
	}

	show := func(s device.Status) error { return print(out, s) }
	if *asJSON {
		show = func(s device.Status) error { return json.NewEncoder(out).Encode(s) }
	}
	c := control.NewClient(*path)
	one := func(s device.Status, err error) error {
		if err != nil {
			return err
		}
		return show(s)
	}
	switch command := fs.Arg(0); command {
	case "status":
		return one(c.Status(ctx))
	case "enable":
		return one(c.SetEnabled(ctx, true))
	case "disable":
		return one(c.SetEnabled(ctx, false))
	case "watch":
		return c.Watch(ctx, show)
	default:
		return usageError{fmt.Errorf("unknown command %q", command)}
	}
}
