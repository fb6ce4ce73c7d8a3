// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
)

var (
	rounds = flag.Int("adversary.rounds", 10, "random rounds on each accelerator, after the sweep")
	seed   = flag.Uint64("adversary.seed", 0, "of the random rounds; 0: the time")
	memory = flag.Int("adversary.memory", 64, "the guest's memory in MiB, 16 to 256")
	cpus   = flag.Int("adversary.cpus", 2, "the guest's processors, 2 to 4")
)

// Shared by all tests. TestMain sets these, and the tests only read them.
var (
	parts *lab.Lab
	rom   string
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	if err := open(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "adversary: cannot start:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "adversary: %s, -adversary.seed=%d\n", parts.Version, *seed)
	os.Exit(m.Run())
}

func open(ctx context.Context) (err error) {
	switch {
	case *rounds < 0:
		return fmt.Errorf("-adversary.rounds=%d: the least is 0", *rounds)
	case *memory < 16 || *memory > 256:
		return fmt.Errorf("-adversary.memory=%d is not between 16 and 256", *memory)
	case *cpus < 2 || *cpus > 4:
		return fmt.Errorf("-adversary.cpus=%d is not between 2 and 4", *cpus)
	}
	parts, err = lab.OpenHost(ctx, func(line string) { fmt.Fprintln(os.Stderr, "adversary:", line) })
	if err != nil {
		return err
	}
	rom, err = Build(ctx, parts.Root)
	return err
}
