// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"testing"
)

// SharedDirPrefix is what the names of folders in shared memory begin with.
const SharedDirPrefix = "fbpp-pool-"

// MustSharedDir makes a folder in shared memory, for guest memory that several QEMUs map. It is
// gone when remove is called, or at the end of the test.
func MustSharedDir(t testing.TB) (dir string, remove func()) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", SharedDirPrefix)
	if err != nil {
		t.Fatal(err)
	}
	remove = func() { os.RemoveAll(dir) }
	t.Cleanup(remove)
	return dir, remove
}
