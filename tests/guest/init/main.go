// SPDX-License-Identifier: Apache-2.0

// Command init is all that runs in a test guest: process 1, and the programs
// that tests start by its other names.
//
//	/init                        set the guest up and take orders (process 1)
//	/init orders                 take orders, in a guest that others have set up
//	/init fill MIB               touch memory, give it back, print what is free
//	/init keep MIB               touch memory and hold it until the input ends
//	/init fragment MIB           touch memory, give it back in small pieces, hold the rest
//	/init cache FILE...          read files, so that their pages are cached, hold them open
//	/init swapon DISK            swap to a disk
//	/init build DISK             build a part of the kernel over and over, answer on stdin
//	/init kill COMMAND TIME      kill a program after a time
//	/init freeze ARGUMENT        stop a program that is started with it, until a line comes
//	/init disturb HOW            disturb the fbpp device while an agent drives it
//	/init zeroes MIB             print whether new memory is zero
//	/init show FILE              print a file
//	/init memory                 print what is free, in pages
//	/init activity COMMAND       print a program's context switches and CPU time so far
//	/init integrity [FLAGS]      keep churning checksummed memory, answer on stdin
//	/init pulse [FLAGS]          work at an even pace, which the host can see
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	if os.Getpid() == 1 {
		err = boot() // does not return while the guest lives
	} else {
		err = run(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(1)
	}
}

// run runs one of the programs.
func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no program was named")
	}
	switch args[0] {
	case "orders":
		return takeOrders()
	case "fill":
		return fill(args[1:])
	case "keep":
		return keep(args[1:])
	case "fragment":
		return fragment(args[1:])
	case "cache":
		return cache(args[1:])
	case "swapon":
		return swapOn(args[1:])
	case "build":
		return build(args[1:])
	case "kill":
		return kill(args[1:])
	case "freeze":
		return freeze(args[1:])
	case "disturb":
		return disturb(args[1:])
	case "zeroes":
		return zeroes(args[1:])
	case "show":
		return show(args[1:])
	case "memory":
		return printMemory()
	case "activity":
		return printActivity(args[1:])
	case "pulse":
		return pulse(args[1:])
	case "integrity":
		return integrity(args[1:])
	}
	return fmt.Errorf("no program %q", args[0])
}
