// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"time"

	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

func backendSuite() suite {
	return suite{name: "backend", rules: backend.AllRules, flags: backendFlags}
}

func backendFlags(fs *flag.FlagSet) func() (report.Suite, error) {
	path := fs.String("socket-path", "", "the backend listens on the Unix socket at `PATH`")
	bound := fs.Duration("timeout", 20*time.Second, "longest time for one rule")
	return func() (report.Suite, error) {
		if *path == "" {
			return nil, usageError{errors.New("--socket-path is missing")}
		}
		return backend.NewSuite(backend.Config{SocketPath: *path, Bound: *bound}), nil
	}
}
