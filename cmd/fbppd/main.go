// SPDX-License-Identifier: Apache-2.0

// Command fbppd is the backend of a virtio-fbpp device: one process for one
// virtual machine, started beside QEMU. It follows the conventions for
// vhost-user backend programs of QEMU's docs/interop/vhost-user.rst.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/cmd/fbppd/confine"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/unixsock"
	"github.com/fbpp-project/fbpp/vhostuser"
)

func main() {
	err := run(os.Args[1:], os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "fbppd: %v\nTry 'fbppd --help'.\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "fbppd: %v\n", err)
		os.Exit(1)
	}
}

// usageError is a wrong command line.
type usageError struct{ error }

// capabilities is what --print-capabilities prints. The type is for people: QEMU's
// schema has none for a device of one's own, and so no file with
// it belongs into QEMU's or libvirt's discovery folders.
const capabilities = `{"type": "fbpp", "features": []}`

type options struct {
	socketPath  string
	fd          int
	controlPath string
	agentPath   string
	logLevel    string
	logFormat   string
	device      device.Options
	confine     confine.Options
}

func parse(args []string) (o options, print bool, err error) {
	fs := flag.NewFlagSet("fbppd", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: fbppd --socket-path=PATH|--fd=N [option]...\n\n")
		fs.PrintDefaults()
	}
	// Whatever else is on the command line, as the conventions have it.
	if slices.Contains(args, "--print-capabilities") || slices.Contains(args, "-print-capabilities") {
		return o, true, nil
	}
	entries := fs.Uint("hold-entries", driver.DefaultHoldEntries, "most free blocks that the guest visits in one hold of a zone's lock")
	fs.StringVar(&o.socketPath, "socket-path", "", "listen for QEMU on the unix socket at `PATH`")
	fs.IntVar(&o.fd, "fd", -1, "use the inherited socket `N`, listening or connected")
	fs.BoolVar(&print, "print-capabilities", false, "print the capabilities as JSON and exit")
	fs.StringVar(&o.controlPath, "control-path", "", "listen for fbppctl and Prometheus on the unix socket at `PATH`")
	fs.StringVar(&o.agentPath, "agent-socket", "", "listen for the guest's serial port on the unix socket at `PATH`")
	fs.BoolVar(&o.device.Disabled, "disabled", false, "start with the optimisation switched off")
	fs.DurationVar(&o.device.HoldBudget, "hold-budget", driver.DefaultHoldBudget, "longest `time` that the guest holds one zone's lock")
	fs.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&o.logFormat, "log-format", "console", "console or json")
	fs.StringVar((*string)(&o.confine.Sandbox), "sandbox", string(confine.SandboxLandlock), "landlock or none: whether to give up files and capabilities once the sockets are open")
	fs.StringVar((*string)(&o.confine.Seccomp), "seccomp", string(confine.SeccompErrno), "errno, kill, log or none: what becomes of a system call that fbppd does not need")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, false, err
		}
		return o, false, usageError{err}
	}
	if print {
		return o, true, nil
	}
	switch {
	case fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case (o.socketPath == "") == (o.fd < 0):
		err = errors.New("give either --socket-path or --fd")
	case o.device.HoldBudget < 10*time.Microsecond || o.device.HoldBudget > time.Second:
		err = fmt.Errorf("--hold-budget %v is not between 10µs and 1s", o.device.HoldBudget)
	case *entries == 0 || *entries > 10_000_000:
		err = fmt.Errorf("--hold-entries %d is not between 1 and 10000000", *entries)
	default:
		err = o.confine.Check()
	}
	if err != nil {
		return o, false, usageError{err}
	}
	o.device.HoldEntries = uint32(*entries)
	return o, false, nil
}

func run(args []string, stdout io.Writer) error {
	o, print, err := parse(args)
	if err != nil {
		return err
	}
	if print {
		fmt.Fprintln(stdout, capabilities)
		return nil
	}
	lg, err := logger(o.logLevel, o.logFormat)
	if err != nil {
		return usageError{err}
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	return serve(ctx, o, lg, confine.Process)
}

func logger(level, format string) (*zap.Logger, error) {
	lvl, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	c := zap.NewProductionConfig()
	if format == "console" {
		c = zap.NewDevelopmentConfig()
		c.Development, c.DisableStacktrace, c.DisableCaller = false, true, true
	} else if format != "json" {
		return nil, fmt.Errorf("--log-format %q is neither console nor json", format)
	}
	// A guest decides how often some lines come: of one kind, no more than these
	// in a second.
	c.Level, c.Sampling = lvl, &zap.SamplingConfig{Initial: 100, Thereafter: 10_000}
	return c.Build()
}

// serve listens, gives up by restrict what it does not need from then on, and
// serves until ctx ends.
func serve(ctx context.Context, o options, lg *zap.Logger, restrict func(confine.Options) (confine.Report, error)) error {
	sd, err := newNotifier(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer sd.Close()

	l, err := vhostuser.Open(o.socketPath, o.fd)
	if err != nil {
		return err
	}
	defer l.Close()

	o.device.Logger = lg
	dev := device.New(o.device)
	srv, err := vhostuser.NewServer(dev.VhostUser(), lg)
	if err != nil {
		return err
	}
	var ctl, port net.Listener
	if o.agentPath != "" {
		if port, err = unixsock.Listen(o.agentPath); err != nil {
			return fmt.Errorf("--agent-socket: %w", err)
		}
		defer port.Close()
	}
	if o.controlPath != "" {
		if ctl, err = unixsock.Listen(o.controlPath); err != nil {
			return fmt.Errorf("--control-path: %w", err)
		}
		defer ctl.Close()
	}

	for _, path := range []string{o.socketPath, o.agentPath, o.controlPath} {
		if path != "" {
			o.confine.Removable = append(o.confine.Removable, filepath.Dir(path))
		}
	}
	report, err := restrict(o.confine)
	if err != nil {
		return err
	}
	lg.Info("confined", zap.Strings("in_force", report.InForce))
	if len(report.Missing) > 0 {
		lg.Warn("not confined as far as wished", zap.Strings("missing", report.Missing))
	}

	// With a connected socket the process ends when its frontend leaves.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel()
		if err := srv.Serve(ctx, l); ctx.Err() == nil {
			return err
		}
		return nil // the cause was a signal: a clean end
	})
	if ctl != nil {
		group.Go(func() error { return control.Serve(ctx, ctl, dev, lg) })
	}
	if port != nil {
		group.Go(func() error { return servePort(ctx, port, dev, lg) })
	}
	sd.Notify("READY=1")
	<-ctx.Done()
	sd.Notify("STOPPING=1")
	return group.Wait()
}
