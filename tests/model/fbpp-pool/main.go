// SPDX-License-Identifier: Apache-2.0

// Command fbpp-pool simulates guests whose memory arrives from a pool at several hosts at once, and
// prints the table of docs/pool.md.
package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/tests/model/pool"
)

func main() { cli.Main("fbpp-pool", simulate) }

// seed is that of the touches, so that the table is the same each time.
const seed = 1

func simulate(_ context.Context, args []string, stdout io.Writer) error {
	var g pool.Guest
	var p pool.Path
	flags := pflag.NewFlagSet("fbpp-pool", pflag.ContinueOnError)
	content := flags.Int("content", 1024, "memory with content of each guest, in `MiB`")
	hosts := flags.IntSlice("hosts", []int{1, 16, 64, 256}, "`numbers` of hosts at once")
	flags.DurationVar(&g.Every, "touch", 10*time.Microsecond, "`time` between touches of a page")
	flags.Float64Var(&g.Hot, "hot", 0.05, "`share` of the pages that is hot")
	flags.Float64Var(&g.HotTouches, "hot-touches", 0.9, "`share` of the touches that go there")
	flags.DurationVar(&p.Fault, "fault", 80*time.Microsecond, "`time` that a guest waits for a page")
	flags.Float64Var(&p.Copy, "copy", 1e9, "bytes per `second` that one host's background copies")
	flags.Float64Var(&p.Bound, "bound", 0, "max-postcopy-bandwidth, in bytes per `second`")
	flags.Float64Var(&p.Link, "link", 32e9, "bytes per `second` that one host reads from the pool")
	flags.Float64Var(&p.Pool, "pool", 128e9, "bytes per `second` that all of them read")
	if err := cli.Parse(flags, args, stdout); err != nil {
		return err
	}
	g.Pages = *content << 20 / pool.PageSize
	fmt.Fprintln(stdout, "| hosts at once | all is local after | pages waited for | waited |")
	fmt.Fprintln(stdout, "|---|---|---|---|")
	for _, n := range *hosts {
		if n < 1 || g.Pages < 1 {
			return cli.Usagef("%d hosts with %d pages: the least is 1", n, g.Pages)
		}
		r := pool.Arrive(n, g, p, seed)[0]
		fmt.Fprintf(stdout, "| %d | %.2f s | %.1f %% | %d ms |\n", n, r.Local.Seconds(),
			100*float64(r.Faults)/float64(g.Pages), r.Waited.Milliseconds())
	}
	return nil
}
