// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"regexp"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/fbpp-project/fbpp/cmd/cli"
)

// about is what --help and the manual page begin with.
const about = `fbpp-agent reports the free memory of the guest that it runs in to the host, when a
live migration begins. It needs root.

Exit status:

    0   it was told to end; with --check, this guest can report; with --once, it did
    1   there is no device, or it cannot be opened; with --check or --once, this
        guest cannot report, and the reason is printed
    2   the command line is wrong`

// options is the parsed command line.
type options struct {
	device string // full PCI address; "" is the only device there is
	level  zapcore.Level
	check  bool
	once   bool
	asJSON bool

	policy    string // file that says which programs of the host are taken
	accepted  string // file of the newest versions that were
	noBuiltIn bool
}

// Files of the programs of the host.
const (
	defaultPolicy   = "/etc/fbpp/programs.json"
	defaultAccepted = "/var/lib/fbpp-agent/accepted.json"
)

// pciAddress matches the address of a PCI device, as lspci prints it.
var pciAddress = regexp.MustCompile(`^([0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$`)

// newCommand returns the command that fills o from its command line.
func newCommand(o *options) *cobra.Command {
	*o = options{level: zapcore.InfoLevel}
	cmd := &cobra.Command{
		Use:   "fbpp-agent [--check|--once]",
		Short: "reports a guest's free memory to its host",
		Long:  about,
		Args:  cli.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return o.validate() },
	}
	fs := cmd.Flags()
	fs.StringVar(&o.device, "device", "",
		"PCI `address` of the device, such as 0000:00:05.0; default: the only one")
	cli.Var(fs, &o.level, "log-level", "`level`: debug, info, warn or error")
	fs.BoolVar(&o.check, "check", false, "say whether this guest can report its free memory")
	fs.BoolVar(&o.once, "once", false, "take one snapshot, and print its figures")
	fs.StringVar(&o.policy, "program-policy", defaultPolicy,
		"JSON `file` that says which programs of the host are taken; without it none are")
	fs.StringVar(&o.accepted, "program-accepted", defaultAccepted,
		"`file` that remembers the newest accepted versions")
	fs.BoolVar(&o.noBuiltIn, "no-built-in", false,
		"load no built-in program: report nothing before one of the host is in use")
	fs.BoolVar(&o.asJSON, "json", false, "with --check or --once: print JSON")
	return cmd
}

func parse(ctx context.Context, args []string, stdout io.Writer) (options, error) {
	var o options
	err := cli.Execute(ctx, newCommand(&o), args, stdout)
	return o, err
}

// validate returns a cli.UsageError for options that are wrong, and completes the
// device's address.
func (o *options) validate() error {
	switch {
	case o.check && o.once:
		return cli.Usagef("give either --check or --once")
	case o.asJSON && !o.check && !o.once:
		return cli.Usagef("--json goes with --check or --once")
	case o.noBuiltIn && (o.check || o.once):
		return cli.Usagef("--check and --once are about the built-in program")
	case o.device == "":
	case o.check || o.once:
		return cli.Usagef("--check and --once look at no device")
	case !pciAddress.MatchString(o.device):
		return cli.Usagef("--device %q is no PCI address such as 0000:00:05.0", o.device)
	case len(o.device) == len("00:05.0"):
		o.device = "0000:" + o.device
	}
	return nil
}
