// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/fbpp-project/fbpp/tests/lab"
)

// parts are the programs and kernels that all tests use. TestMain makes them, and the
// tests only read them.
var parts *lab.Lab

// Tests of random events have a short and a full length, and log their seed.
var (
	soak = flag.Bool("soak", false, "run tests of random events at full length")
	seed = flag.Uint64("seed", 0, "`number` that random events follow from; 0: a new one each time")
)

// rounds returns how often a test repeats: share, or all with -soak.
func rounds(share, all int) int {
	if *soak {
		return all
	}
	return share
}

// random returns a source of random numbers, and logs the seed that repeats them.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	n := *seed
	if n == 0 {
		n = rand.Uint64()
	}
	t.Logf("again with -seed=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

func TestMain(m *testing.M) {
	flag.Parse()
	progress := func(line string) { fmt.Fprintln(os.Stderr, "e2e:", line) }
	l, err := lab.Open(context.Background(), progress)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: cannot start:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "e2e: %s, %s\n", l.Version, l.Accel)
	parts = l
	os.Exit(m.Run())
}
