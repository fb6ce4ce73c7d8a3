// SPDX-License-Identifier: Apache-2.0

// Command fbpp-agent runs in a guest and reports its free memory to the host
// when a live migration begins. It needs root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/inject"
	"github.com/fbpp-project/fbpp/driver-ebpf/preflight"
	"github.com/fbpp-project/fbpp/driver-ebpf/program"
	"github.com/fbpp-project/fbpp/driver-ebpf/transport"
)

// memoryLimit is the size of the Go runtime's memory, in bytes, at which the garbage
// collector runs. It does not run before: a collection during an exchange would
// delay that by milliseconds. While the agent waits for events, it allocates almost
// nothing.
const memoryLimit = 64 << 20

func main() {
	if len(os.Args) > 1 && os.Args[1] == program.ChildArg {
		loadProgram(os.Args[2:])
	}
	cli.Main("fbpp-agent", run)
}

// loadProgram is this program as the child that loads a program of the host.
func loadProgram(args []string) {
	if err := program.Child(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(ctx, args, stdout)
	if err != nil {
		return err
	}
	lg, err := newLogger(o.level)
	if err != nil {
		return err
	}
	defer func() { _ = lg.Sync() }() // fails where stderr cannot be synced

	if !o.check && !o.once {
		// An image with the agent may also run without the device. Then the agent
		// ends before it loads any eBPF program.
		if _, err := transport.Find(o.device); err != nil {
			return err
		}
	}
	judge, err := chooseJudge(&o, lg)
	if err != nil {
		return err
	}
	found, err := preflight.Run(preflight.Options{NoBuiltIn: o.noBuiltIn, Log: lg})
	if err != nil {
		return err
	}
	defer found.Close()
	switch {
	case o.check:
		return printCheck(stdout, found, o.asJSON)
	case o.once:
		return printSnapshot(stdout, found, o.asJSON)
	case found.Err != nil:
		lg.Error("this guest reports no free memory",
			zap.Stringer("status", found.Guest.Status), zap.Error(found.Err))
	case found.CacheErr != nil:
		lg.Info("this guest drops no cache for a migration", zap.Error(found.CacheErr))
	}
	return serve(ctx, lg, found, judge, o.device)
}

// chooseJudge is newJudge, but that a policy which cannot be read does not stop the built-in
// walk. Without one, a policy that takes no walk is an error: the guest would never report.
func chooseJudge(o *options, lg *zap.Logger) (*program.Judge, error) {
	judge, err := newJudge(o)
	switch {
	case o.noBuiltIn && err == nil && (judge == nil || !judge.Policy.TakesWalk()):
		return nil, fmt.Errorf("--no-built-in: %s is missing, or takes no walk", o.policy)
	case err != nil && !o.noBuiltIn:
		lg.Error("no program of the host is taken, the built-in one goes on", zap.Error(err))
		return nil, nil
	}
	return judge, err
}

// newJudge returns who decides about programs of the host, or nil if none are taken.
func newJudge(o *options) (*program.Judge, error) {
	policy, err := program.ReadPolicy(o.policy)
	if errors.Is(err, os.ErrNotExist) && o.policy == defaultPolicy {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if !policy.Takes() {
		return nil, nil
	}
	newest, err := program.OpenNewest(o.accepted)
	if err != nil {
		return nil, err
	}
	return program.NewJudge(policy, newest), nil
}

func newLogger(level zapcore.Level) (*zap.Logger, error) {
	config := zap.NewProductionConfig()
	config.Level = zap.NewAtomicLevelAt(level)
	config.Encoding = "console"
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	config.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	config.DisableCaller, config.DisableStacktrace, config.Sampling = true, true, nil
	return config.Build()
}

func serve(
	ctx context.Context, lg *zap.Logger, found *preflight.Result, judge *program.Judge, device string,
) error {
	a, err := agent.New(found.Guest, found.Walker(), found.Dropper(), lg)
	if err != nil {
		return err
	}
	eventSize := protocol.EventSize
	if judge != nil && found.Snapshot != nil {
		programs, err := inject.New(judge, found.Snapshot, found.Guest, lg)
		if err != nil {
			return err
		}
		defer programs.Close()
		a.SetPrograms(programs)
		eventSize = agent.ProgramBuffer
	}
	o := &opener{lg: lg, found: found, device: device, eventSize: eventSize}
	debug.FreeOSMemory() // loading the programs took memory that is free now
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(-1)
	err = a.Serve(ctx, o.open, func() {
		notify(lg, daemon.SdNotifyReady)
	})
	notify(lg, daemon.SdNotifyStopping)
	lg.Info("stopped")
	return err
}

// notify tells systemd a state, if systemd has started the process.
func notify(lg *zap.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		lg.Warn("notify systemd", zap.Error(err))
	}
}
