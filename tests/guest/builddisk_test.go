// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/tests/guest/kbuild"
)

// kernelPackagesIn makes what Debian's packages have of a kernel to build, below dir.
func kernelPackagesIn(t *testing.T, dir string) {
	t.Helper()
	const source = "linux-source-6.1"
	for _, path := range []string{
		"usr/bin/dash", "usr/bin/mawk", "usr/lib/libc.so.6", "usr/lib/modules/6.1.0/isofs.ko",
		"usr/src/linux-headers-6.1.0-common/Makefile",
		"usr/src/linux-headers-6.1.0-cloud-amd64/Makefile",
		source + "/" + kbuild.Folder + "/inode.c", source + "/fs/inode.c",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(dir, "usr/src", source+".tar.xz")
	out, err := exec.Command("tar", "-cJf", archive, "-C", dir, source).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestBuildRootHasAKernelToBuild(t *testing.T) {
	dir := t.TempDir()
	kernelPackagesIn(t, dir)
	root := filepath.Join(dir, "root")
	if err := (&Packages{dir: dir}).buildRoot(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"bin/sh", "usr/bin/awk", "lib/libc.so.6", "tmp", "dev", "proc",
		kbuild.Headers + "/Makefile", kbuild.Sources + "/inode.c",
	} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"usr/src/linux-source-6.1.tar.xz", "usr/lib/modules"} {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil {
			t.Errorf("%s takes room on the disk", path)
		}
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Errorf("the cache has lost it: %v", err)
		}
	}
}

func TestBuildRootOfTwoKernelsIsRefused(t *testing.T) {
	dir := t.TempDir()
	kernelPackagesIn(t, dir)
	other := filepath.Join(dir, "usr/src/linux-headers-6.2.0-cloud-amd64")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	err := (&Packages{dir: dir}).buildRoot(t.Context(), filepath.Join(dir, "root"))
	if err == nil || !strings.Contains(err.Error(), filepath.Base(other)) {
		t.Errorf("got %v", err)
	}
}
