// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// parts are the programs that all tests use. TestMain makes them, and the tests only
// read them.
var parts *lab.Lab

func TestMain(m *testing.M) {
	progress := func(line string) { fmt.Fprintln(os.Stderr, "bare:", line) }
	l, err := lab.OpenHost(context.Background(), progress)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare: cannot start:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "bare: %s\n", l.Version)
	parts = l
	os.Exit(m.Run())
}
