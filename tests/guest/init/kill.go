// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/guest/activity"
)

// kill kills a program after a time of the guest's clock. The host cannot order the
// kill at any time, because an order is lost if the guest moves meanwhile. kill prints
// a line when the time begins.
func kill(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("expected the name of a program and a time, got %q", args)
	}
	after, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	pid, err := activity.Find(args[0])
	if err != nil {
		return err
	}
	fmt.Println(pid)
	time.Sleep(after)
	return os.NewSyscallError("kill", unix.Kill(pid, unix.SIGKILL))
}
