// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/fbpp-project/fbpp/tests/guest/kbuild"
)

// build builds a part of the kernel over and over, from a disk with the compiler and the
// sources. It answers each line of the input when the build that is under way has ended.
func build(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("expected a disk, got %q", args)
	}
	const root = "/build"
	if err := kbuild.Mount(args[0], root); err != nil {
		return err
	}
	loop := kbuild.NewLoop(func() (kbuild.Objects, error) { return kbuild.Build(root) })
	go loop.Run()
	return answerLines(func(string) (any, error) { return loop.Await(), nil })
}
