// SPDX-License-Identifier: Apache-2.0

// Program fetch puts Debian's current kernel of a series into the project's cache, and prints
// the version of its package. An argument is the series, such as sid/linux-image-amd64.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/fbpp-project/fbpp/tests/guest"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("one kernel series is needed, not %q", args)
	}
	// Otherwise a kernel that the cache holds is the answer.
	if err := os.Setenv("FBPP_REFRESH_KERNELS", "1"); err != nil {
		return err
	}
	kernel, err := guest.FetchKernel(ctx, guest.Series(args[0]), nil)
	if err != nil {
		return err
	}
	fmt.Println(kernel.Version)
	return nil
}
