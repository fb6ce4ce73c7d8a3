// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// freeze waits for a process with that first argument, stops it, and prints its id. When it has
// read a line, it lets the process go on, and prints its id once more.
func freeze(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected the argument of a program, got %q", args)
	}
	pid := 0
	for ; pid == 0; time.Sleep(time.Millisecond) {
		var err error
		if pid, err = findByArgument(args[0]); err != nil {
			return err
		}
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return os.NewSyscallError("kill", err)
	}
	fmt.Println(pid)
	if !bufio.NewScanner(os.Stdin).Scan() {
		return fmt.Errorf("process %d stays stopped", pid)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		return os.NewSyscallError("kill", err)
	}
	fmt.Println(pid)
	return nil
}

// findByArgument returns the id of a process with that first argument, or 0.
func findByArgument(argument string) (pid int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range files {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		if words := strings.Split(string(line), "\x00"); len(words) > 1 && words[1] == argument {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, nil
}
