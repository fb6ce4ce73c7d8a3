// SPDX-License-Identifier: Apache-2.0

// Command fbppd is the backend of a virtio-fbpp device: one process for one
// virtual machine, started beside QEMU. It follows the conventions for
// vhost-user backend programs of QEMU's docs/interop/vhost-user.rst.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/cmd/fbppd/confine"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/history"
	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

func main() { cli.Main("fbppd", run) }

// capabilities is what --print-capabilities prints. The type is not in QEMU's
// schema (docs/interop/vhost-user.json), which has none for other devices. So do
// not install a description of fbppd where QEMU and libvirt look for backends.
const capabilities = `{"type": "fbpp", "features": []}`

// about is what --help and the manual page begin with.
const about = `fbppd is the backend of the virtio-fbpp device of one virtual machine, and is started
beside QEMU. It asks the guest for its free memory when a live migration begins.

Exit status: 0 when it was told to end, 1 after a failure, 2 for a wrong command line.`

type options struct {
	socketPath  string
	fd          int
	controlPath string
	agentPath   string
	historyPath string
	logLevel    string
	logFormat   string
	device      device.Options
	confine     confine.Options
}

// newCommand returns the command that fills o from its command line.
func newCommand(o *options) *cobra.Command {
	*o = options{
		confine: confine.Options{Sandbox: confine.SandboxLandlock, Seccomp: confine.SeccompErrno},
		device:  device.Options{Source: device.PolicyGuest, Port: device.PortReport},
	}
	cmd := &cobra.Command{
		Use:   "fbppd --socket-path=PATH|--fd=N",
		Short: "backend of the virtio-fbpp device of a virtual machine",
		Long:  about,
		Args:  cli.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return o.check() },
	}
	fs := cmd.Flags()
	fs.StringVar(&o.socketPath, "socket-path", "", "listen for QEMU on the unix socket at `PATH`")
	fs.IntVar(&o.fd, "fd", -1, "use the inherited socket `N`, listening or connected")
	fs.Bool("print-capabilities", false, "print the capabilities as JSON and exit")
	fs.StringVar(&o.controlPath, "control-path", "",
		"listen for fbppctl and Prometheus on the unix socket at `PATH`")
	fs.StringVar(&o.agentPath, "agent-socket", "",
		"listen for the guest's serial port on the unix socket at `PATH`")
	cli.Var(fs, &o.device.Port, "agent-port",
		"`POLICY` for that port: the agent of a guest without the device may report there (report), "+
			"or only say why it does not (refuse-only)")
	fs.StringVar(&o.historyPath, "history-path", "",
		"keep what becomes of the last 100 migrations in the file at `PATH`")
	cli.Var(fs, &o.device.Source, "source",
		"`SOURCE` that is asked what is free: the guest's driver (guest), nobody in the guest "+
			"(introspect), the one and then the other (auto), or nobody (none)")
	cli.Var(fs, &o.device.Cache, "cache",
		"`POLICY` for the guest's cold page cache: sent as any memory (send), or at the end (last), "+
			"or dropped by the guest's driver before (drop)")
	cli.Bytes(fs, &o.device.Drop.Bytes, "cache-drop-max", device.DefaultDropBytes, 1<<20, 1<<40,
		"with --cache=drop: most of it, a `SIZE`, that is dropped for one request")
	cli.Duration(fs, &o.device.Drop.Time, "cache-drop-time",
		device.DefaultDropTime, time.Millisecond, 10*time.Second,
		"with --cache=drop: longest `time` that dropping may take")
	cli.Var(fs, &o.device.Hot, "hot",
		"`POLICY` for what is sent first where a migration has a use for that: what the guest's "+
			"kernel calls used (kernel), what a sample found (sample), what is written when the "+
			"migration begins (written), or a sample and else the kernel's word (auto)")
	cli.Duration(fs, &o.device.HotTime, "hot-time",
		device.DefaultHotTime, 10*time.Millisecond, 30*time.Second,
		"with --hot=written: how much `time` the guest is watched for")
	fs.BoolVar(&o.device.Disabled, "disabled", false, "start with the optimisation switched off")
	cli.Duration(fs, &o.device.HoldBudget, "hold-budget",
		driver.DefaultHoldBudget, 10*time.Microsecond, time.Second,
		"longest `time` that the guest holds one zone's lock")
	fs.Uint32Var(&o.device.HoldEntries, "hold-entries", driver.DefaultHoldEntries,
		"most free blocks, a `NUMBER`, that the guest visits in one hold of a zone's lock")
	fs.StringVar(&o.logLevel, "log-level", "info", "`LEVEL`: debug, info, warn or error")
	fs.StringVar(&o.logFormat, "log-format", "console", "`FORMAT`: console or json")
	fs.StringVar((*string)(&o.confine.Sandbox), "sandbox", string(o.confine.Sandbox),
		"`KIND`, landlock or none: whether to give up files and capabilities once the sockets are open")
	fs.StringVar((*string)(&o.confine.Seccomp), "seccomp", string(o.confine.Seccomp),
		"`ACTION`, errno, kill, log or none: what becomes of a system call that fbppd does not need")
	return cmd
}

// parse returns the options. After it has printed the help, the version or the
// capabilities, it returns cli.ErrDone.
func parse(ctx context.Context, args []string, stdout io.Writer) (options, error) {
	// By the conventions, this option works whatever else is on the command line.
	if slices.Contains(args, "--print-capabilities") {
		fmt.Fprintln(stdout, capabilities)
		return options{}, cli.ErrDone
	}
	var o options
	err := cli.Execute(ctx, newCommand(&o), args, stdout)
	return o, err
}

// check returns a cli.UsageError for options that are wrong.
func (o *options) check() error {
	if (o.socketPath == "") == (o.fd < 0) {
		return cli.Usagef("give either --socket-path or --fd")
	}
	if o.agentPath == "" {
		o.device.Port = device.PortRefuseOnly
	}
	if o.device.HoldEntries == 0 || o.device.HoldEntries > 10_000_000 {
		return cli.Usagef("--hold-entries is not between 1 and 10000000")
	}
	for name, path := range map[string]string{
		"socket-path": o.socketPath, "control-path": o.controlPath, "agent-socket": o.agentPath,
	} {
		if path == "" {
			continue
		}
		if err := unixsock.Check(path); err != nil {
			return cli.Usagef("--%s: %w", name, err)
		}
	}
	if err := o.confine.Check(); err != nil {
		return cli.Usagef("%w", err)
	}
	return nil
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(ctx, args, stdout)
	if err != nil {
		return err
	}
	lg, err := logger(o.logLevel, o.logFormat)
	if err != nil {
		return cli.Usagef("%w", err)
	}
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
	// A guest decides how often some lines are logged. Of lines with the same
	// message, only the first 100 in a second are written, and then every 10000th.
	c.Level, c.Sampling = lvl, &zap.SamplingConfig{Initial: 100, Thereafter: 10_000}
	return c.Build()
}

// serve opens all sockets and files, confines the process by restrict, and serves
// until ctx ends.
func serve(
	ctx context.Context, o options, lg *zap.Logger,
	restrict func(confine.Options) (confine.Report, error),
) error {
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

	// Opened now, since a confined process cannot. Without /dev/userfaultfd,
	// vhostuser uses the system call for postcopy.
	uffd, err := vhostuser.OpenUserfault()
	if err == nil {
		defer uffd.Close()
	}
	if o.historyPath != "" {
		h, err := history.Open(o.historyPath, func(err error) {
			lg.Warn("the newest outcomes are in memory only", zap.Error(err))
		})
		if err != nil {
			return fmt.Errorf("--history-path: %w", err)
		}
		defer h.Close()
		o.device.History = h
	}
	o.device.Logger = lg
	dev := device.New(o.device)
	srv, err := vhostuser.NewServer(dev.VhostUser(), lg, vhostuser.WithUserfault(uffd))
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

	// If --fd is a connected socket, Serve returns when the frontend disconnects.
	// Then the process ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel()
		if err := srv.Serve(ctx, l); ctx.Err() == nil {
			return err
		}
		return nil // ended by a signal, which is no error
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
