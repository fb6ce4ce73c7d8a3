// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

func backendSuite() suite {
	return suite{
		name: "backend", short: "check the vhost-user backend that listens on a socket",
		long:  "The backend's device is one of these (--device):\n" + profileList(),
		rules: backend.AllRules, flags: backendFlags,
	}
}

func backendFlags(fs *pflag.FlagSet) func() (report.Suite, error) {
	var c backend.Config
	fs.StringVar(&c.SocketPath, "socket-path", "", "the backend listens on the Unix socket at `PATH`")
	device := fs.String("device", "generic",
		"what the backend's device is: `NAME` of the list above")
	command := fs.String("start", "",
		"start the backend by the shell `COMMAND`, again if it has ended before a rule")
	limit := func(p *time.Duration, name string, value time.Duration, usage string) {
		cli.Duration(fs, p, name, value, shortest, cli.NoMax, usage)
	}
	limit(&c.Bound, "timeout", 20*time.Second, "longest `time` for one rule")
	limit(&c.Patience, "patience", 3*time.Second, "longest `time` to wait for one answer")
	fs.StringVar(&c.ControlPath, "control-path", "",
		"fbppd's control socket at `PATH`: for rules about its switch")
	fs.StringVar(&c.AgentPath, "agent-socket", "",
		"fbppd's socket for the guest's serial port at `PATH`")
	return func() (_ report.Suite, err error) {
		paths := map[string]string{"control-path": c.ControlPath, "agent-socket": c.AgentPath}
		for name, path := range paths {
			if err := checkPath(name, path); path != "" && err != nil {
				return nil, err
			}
		}
		if err := checkPath("socket-path", c.SocketPath); err != nil {
			return nil, err
		}
		if c.Profile, err = backend.FindProfile(*device); err != nil {
			return nil, cli.Usagef("--device: %w", err)
		}
		if *command != "" {
			c.Command = []string{"/bin/sh", "-c", *command}
		}
		return backend.NewSuite(c), nil
	}
}

// shortest is the shortest duration that options accept.
const shortest = time.Millisecond

// checkPath returns a cli.UsageError for a path that is missing or cannot be that
// of a socket.
func checkPath(name, path string) error {
	if path == "" {
		return cli.Usagef("--%s is missing", name)
	}
	if err := unixsock.Check(path); err != nil {
		return cli.Usagef("--%s: %w", name, err)
	}
	return nil
}

func profileList() string {
	var b strings.Builder
	for _, p := range backend.Profiles() {
		fmt.Fprintf(&b, "  %-8s %s\n", p.Name, p.Does)
	}
	return strings.TrimRight(b.String(), "\n")
}
