// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

func driverSuite() suite {
	return suite{
		name: "driver", short: "be the device that a driver is checked against",
		rules: driver.AllRules, flags: driverFlags,
	}
}

func driverFlags(fs *pflag.FlagSet) func() (report.Suite, error) {
	var c driver.Config
	fs.StringVar(&c.SocketPath, "socket-path", "",
		"listen on a Unix socket at `PATH` for the frontend that has the driver")
	limit := func(p *time.Duration, name string, value time.Duration, usage string) {
		cli.Duration(fs, p, name, value, shortest, cli.NoMax, usage)
	}
	limit(&c.Wait, "wait", driver.DefaultWait, "`time` that the driver may take to come")
	limit(&c.Patience, "patience", driver.DefaultPatience,
		"`time` that the driver may take to do what it must")
	limit(&c.Quiet, "quiet", driver.DefaultQuiet, "`time` to wait for what must not come")
	limit(&c.Hold, "hold", driver.DefaultHold,
		"`time` to leave messages unread, to see whether the guest goes on")
	offer := fs.String("offer", "packed",
		"features to offer, besides INDIRECT_DESC and EVENT_IDX: any of `packed,in-order`, or none")
	pause := fs.String("pause", "", "shell `COMMAND` that pauses the guest's CPUs")
	resume := fs.String("resume", "", "shell `COMMAND` that lets them run again")
	restart := fs.String("restart-driver", "",
		"shell `COMMAND` that makes the driver initialise the device anew;"+
			" \"ask\": you do it, when you are told")
	quiet := fs.Bool("no-progress", false, "do not tell on stderr what is being done")
	return func() (report.Suite, error) {
		if err := checkPath("socket-path", c.SocketPath); err != nil {
			return nil, err
		}
		if (*pause == "") != (*resume == "") {
			return nil, cli.Usagef("--pause and --resume belong together")
		}
		var err error
		if c.Features, err = features(*offer); err != nil {
			return nil, cli.Usagef("--offer: %w", err)
		}
		c.Control = driver.Control{Pause: shell(*pause), Resume: shell(*resume), Restart: shell(*restart)}
		if *restart == "ask" {
			c.Control.Restart = func(context.Context) error {
				_, err := fmt.Fprintf(os.Stderr,
					"fbpp-conform: restart the driver in the guest now; waiting %v for it\n", c.Wait)
				return err
			}
		}
		if !*quiet {
			c.Progress = func(line string) { fmt.Fprintln(os.Stderr, "fbpp-conform:", line) }
		}
		return driver.NewSuite(c), nil
	}
}

// features reads a list of feature names.
func features(list string) (bits uint64, err error) {
	for _, name := range split(list) {
		switch name {
		case "packed":
			bits |= 1 << wire.FeatureRingPacked
		case "in-order":
			bits |= 1 << wire.FeatureInOrder
		case "none":
		default:
			return 0, fmt.Errorf("unknown feature %q", name)
		}
	}
	return bits, nil
}

// shell returns a function that runs a shell command with its output on stderr. It
// returns nil for an empty command.
func shell(command string) func(context.Context) error {
	if command == "" {
		return nil
	}
	return func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		// The command may leave a process behind that keeps the output open.
		cmd.WaitDelay = time.Second
		// At the end of ctx, kill the shell and all that it has started.
		cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run %q: %w", command, err)
		}
		return nil
	}
}
