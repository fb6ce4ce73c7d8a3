// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// parts are what all tests share. They are made once, before the first test,
// and only read afterwards.
var parts *lab.Lab

func TestMain(m *testing.M) {
	l, err := lab.Open(context.Background(), func(line string) { fmt.Fprintln(os.Stderr, "e2e:", line) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: cannot start:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "e2e: %s, %s\n", l.Version, l.Accel)
	parts = l
	os.Exit(m.Run())
}
