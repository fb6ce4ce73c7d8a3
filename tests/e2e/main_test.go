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

// parts are what all tests share. They are made once, before the first test,
// and only read afterwards.
var parts *lab.Lab

// Tests of random events have a short and a full length, and say their seed.
var (
	soak = flag.Bool("soak", false, "run at full length what is otherwise a share")
	seed = flag.Uint64("seed", 0, "`number` that decides what is random; 0: another one each time")
)

// rounds returns how often a test repeats: share, or all with -soak.
func rounds(share, all int) int {
	if *soak {
		return all
	}
	return share
}

// random returns a source that -seed decides, and says which seed it was.
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
