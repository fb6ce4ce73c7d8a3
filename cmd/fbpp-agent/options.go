// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"io"
	"regexp"

	"go.uber.org/zap/zapcore"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

const usage = `usage: fbpp-agent [--device=ADDRESS] [--log-level=LEVEL]
       fbpp-agent --check|--once [--json]

Reports the free memory of the guest that it runs in to the host, when a live
migration begins. It needs root.

Exit status:
  0   it was told to end; with --check, this guest can report; with --once, it did
  1   there is no device, or it cannot be opened; with --check or --once, this
      guest cannot report, and the reason is printed
  2   the command line is wrong

options:
`

// options is the parsed command line.
type options struct {
	device string // full PCI address; "" is the only device there is
	level  zapcore.Level
	check  bool
	once   bool
	asJSON bool
}

// pciAddress matches the address of a PCI device, as lspci prints it.
var pciAddress = regexp.MustCompile(`^([0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$`)

func parse(args []string, stdout io.Writer) (options, error) {
	o := options{level: zapcore.InfoLevel}
	fs := flag.NewFlagSet("fbpp-agent", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.device, "device", "",
		"PCI `address` of the device, such as 0000:00:05.0; default: the only one")
	fs.Var(&o.level, "log-level", "`level`: debug, info, warn or error")
	fs.BoolVar(&o.check, "check", false, "say whether this guest can report its free memory")
	fs.BoolVar(&o.once, "once", false, "take one snapshot, and print its figures")
	fs.BoolVar(&o.asJSON, "json", false, "with --check or --once: print JSON")
	err := cli.Parse(fs, args, stdout)
	if err == nil {
		err = cli.NoArgs(fs)
	}
	switch {
	case err != nil:
	case o.check && o.once:
		err = cli.Usagef("give either --check or --once")
	case o.asJSON && !o.check && !o.once:
		err = cli.Usagef("--json goes with --check or --once")
	case o.device == "":
	case o.check || o.once:
		err = cli.Usagef("--check and --once look at no device")
	case !pciAddress.MatchString(o.device):
		err = cli.Usagef("--device %q is no PCI address such as 0000:00:05.0", o.device)
	case len(o.device) == len("00:05.0"):
		o.device = "0000:" + o.device
	}
	return o, err
}
