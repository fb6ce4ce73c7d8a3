// SPDX-License-Identifier: Apache-2.0

// Package program makes a backend program of a device, by the conventions of
// QEMU's docs/interop/vhost-user.rst, "Backend program conventions": the options
// --socket-path, --fd and --print-capabilities, an exit status other than 0 when
// it cannot start, and an end at SIGTERM. See the programs in
// vhostuser/examples.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/program/version"
)

// Program describes a backend program.
type Program struct {
	// Name is what its messages begin with.
	Name string
	// Capabilities is the JSON that --print-capabilities prints, a
	// VHostUserBackendCapabilities of QEMU's docs/interop/vhost-user.json.
	Capabilities string
	// Flags adds the program's own options. It may be nil.
	Flags func(fs *flag.FlagSet)
	// Open makes the device, after the options were parsed. close, unless nil, is
	// called after the device was served.
	Open func() (dev *vhostuser.Device, close func() error, err error)
}

// Main runs the program with the options of the command line until it is told to
// end, and exits. It does not return.
func (p Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	lg, err := zap.NewDevelopment(zap.WithCaller(false), zap.AddStacktrace(zap.DPanicLevel),
		zap.IncreaseLevel(zap.InfoLevel))
	if err == nil {
		err = p.Run(ctx, os.Args[1:], os.Stdout, lg)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Run runs the program until ctx ends, which is no error, or until an inherited
// connection does.
func (p Program) Run(ctx context.Context, args []string, stdout io.Writer,
	lg *zap.Logger) (err error) {
	fs := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	path := fs.String("socket-path", "", "listen for QEMU on the unix socket at `PATH`")
	fd := fs.Int("fd", -1, "use the inherited socket `N`, listening or connected")
	capabilities := fs.Bool("print-capabilities", false, "print the capabilities as JSON and exit")
	showVersion := fs.Bool("version", false, "print the version and exit")
	if p.Flags != nil {
		p.Flags(fs)
	}
	// Whatever else is on the command line: nobody asks for a device.
	if slices.Contains(args, "--print-capabilities") || slices.Contains(args, "-print-capabilities") {
		*capabilities = true
	} else if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case *capabilities:
		_, err := fmt.Fprintln(stdout, p.Capabilities)
		return err
	case *showVersion:
		_, err := fmt.Fprintln(stdout, version.Line(p.Name))
		return err
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	l, err := vhostuser.Open(*path, *fd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	dev, closeDevice, err := p.Open()
	if err != nil {
		return err
	}
	if closeDevice != nil {
		defer func() { err = errors.Join(err, closeDevice()) }()
	}
	server, err := vhostuser.NewServer(dev, lg)
	if err != nil {
		return err
	}
	if err := server.Serve(ctx, l); ctx.Err() == nil {
		return err
	}
	return nil
}
