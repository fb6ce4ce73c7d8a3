// SPDX-License-Identifier: Apache-2.0

// Command writer maps the file that it inherits as descriptor 3, and writes to
// the pages whose numbers it reads from descriptor 4.
package main

import (
	"bufio"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	mem, err := unix.Mmap(3, 0, 16*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	for in := bufio.NewScanner(os.NewFile(4, "orders")); in.Scan(); {
		var page int
		fmt.Sscan(in.Text(), &page)
		mem[page*4096]++
		fmt.Fprintln(os.Stderr, "done")
	}
}
