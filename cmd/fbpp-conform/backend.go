// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

func backendSuite() suite {
	return suite{name: "backend", rules: backend.AllRules, flags: backendFlags}
}

func backendFlags(fs *flag.FlagSet) func() (report.Suite, error) {
	var c backend.Config
	fs.StringVar(&c.SocketPath, "socket-path", "", "the backend listens on the Unix socket at `PATH`")
	device := fs.String("device", "generic", "what the backend's device is, `NAME` of these:\n"+profileList())
	command := fs.String("start", "", "start the backend by the shell `COMMAND`, again if it has ended before a rule")
	fs.DurationVar(&c.Bound, "timeout", 20*time.Second, "longest time for one rule")
	fs.DurationVar(&c.Patience, "patience", 3*time.Second, "longest wait for one answer")
	fs.StringVar(&c.ControlPath, "control-path", "", "fbppd's control socket at `PATH`: for rules about its switch")
	fs.StringVar(&c.AgentPath, "agent-socket", "", "fbppd's socket for the guest's serial port at `PATH`")
	return func() (_ report.Suite, err error) {
		if c.SocketPath == "" {
			return nil, usageError{errors.New("--socket-path is missing")}
		}
		if c.Profile, err = backend.FindProfile(*device); err != nil {
			return nil, usageError{err}
		}
		if *command != "" {
			c.Command = []string{"/bin/sh", "-c", *command}
		}
		return backend.NewSuite(c), nil
	}
}

func profileList() string {
	var b strings.Builder
	for _, p := range backend.Profiles() {
		fmt.Fprintf(&b, "  %-8s %s\n", p.Name, p.Does)
	}
	return strings.TrimRight(b.String(), "\n")
}
