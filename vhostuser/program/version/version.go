// SPDX-License-Identifier: Apache-2.0

// Package version says which source a program was built from, by what Go's
// linker wrote into it. It imports nothing of the project, and whatever does
// may import it.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Line returns the line that a program prints at --version: its name, its
// version, and what built it. The version is the tag of a release, or a
// pseudo-version that names the commit. "+dirty" marks a tree with changes of
// its own, and "(devel)" a build that knew of no repository.
func Line(program string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		info = &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}
	}
	return fmt.Sprintf("%s %s, %s %s/%s",
		program, info.Main.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
