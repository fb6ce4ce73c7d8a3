// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"

	"github.com/fbpp-project/fbpp/tests/conformance/driver"
	"github.com/fbpp-project/fbpp/tests/conformance/report"
)

func driverSuite() suite {
	return suite{name: "driver", rules: driver.AllRules, flags: driverFlags}
}

func driverFlags(fs *flag.FlagSet) func() (report.Suite, error) {
	path := fs.String("socket-path", "", "listen on a Unix socket at `PATH` for the frontend that has the driver")
	return func() (report.Suite, error) {
		if *path == "" {
			return nil, usageError{errors.New("--socket-path is missing")}
		}
		return driver.NewSuite(driver.Config{SocketPath: *path}), nil
	}
}
