// SPDX-License-Identifier: Apache-2.0

// Command look prints a census of a running guest's memory, which it reads from the host:
//
//	go run ./tests/introspect/look PID
//
// PID is that of a QEMU process with a q35 machine and memory in memfds.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/fbpp-project/fbpp/device/introspect"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
	"github.com/fbpp-project/fbpp/tests/introspect/qemuram"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "look:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: look PID")
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	files, err := qemuram.Open(pid)
	if err != nil {
		return err
	}
	defer files.Close()
	size, err := files.Size()
	if err != nil {
		return err
	}
	regions, err := files.Regions(size)
	if err != nil {
		return err
	}
	mem, err := physmem.New(regions)
	if err != nil {
		return err
	}
	return show(context.Background(), mem)
}

func show(ctx context.Context, mem *physmem.Memory) error {
	begin := time.Now()
	kernel, err := introspect.Locate(ctx, mem, introspect.Options{})
	if err != nil {
		return err
	}
	located := time.Since(begin)
	content, err := kernel.Content()
	if err != nil {
		return err
	}
	begin = time.Now()
	census, err := kernel.Scan(ctx, introspect.ScanOptions{Workers: runtime.NumCPU()})
	if err != nil {
		return err
	}
	fmt.Printf("Linux %s, located in %v, %d struct pages read in %v\n%+v\n",
		kernel.Release, located, census.Read, time.Since(begin), content)
	return table(census)
}

// table prints the pages of each zone by class.
func table(census *introspect.Census) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "node\tzone\tclass\tpages\tMiB\tmapped\tdirty\twriteback\tswap-cache\tclean\t")
	for i := range census.Zones {
		zone := &census.Zones[i]
		for class := range pages.Classes {
			n := zone.Classes[class]
			if n.Pages == 0 {
				continue
			}
			fmt.Fprintf(
				w,
				"%d\t%s\t%v\t%d\t%.1f\t%d\t%d\t%d\t%d\t%d\t\n",
				zone.Node,
				zone.Name,
				class,
				n.Pages,
				float64(n.Pages)/256,
				n.Mapped,
				n.Dirty,
				n.Writeback,
				n.SwapCache,
				n.Clean,
			)
		}
	}
	return w.Flush()
}
