// SPDX-License-Identifier: Apache-2.0

package adversary

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// sources are those of the guest. They are embedded so that Go does not use a cached
// test result when they have changed.
//
//go:embed guest
var sources embed.FS

// compileFlags: no library; only general registers, because nothing sets up the
// others; and no code that the compiler would turn into a library call.
var compileFlags = []string{
	"-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror",
	"-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pie",
	"-mno-red-zone", "-mgeneral-regs-only", "-fcf-protection=none", "-fno-stack-protector",
	"-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns",
	"-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-Wl,-z,max-page-size=4096",
}

// Build builds the guest's ROM below the checkout's build folder, with gcc and
// objcopy, and returns its path.
func Build(ctx context.Context, root string) (string, error) {
	out := filepath.Join(root, "build", "adversary")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", fmt.Errorf("build the adversary: %w", err)
	}
	// Several processes may build at once, and a running QEMU has its ROM open.
	scratch, err := os.MkdirTemp(out, "")
	if err != nil {
		return "", fmt.Errorf("build the adversary: %w", err)
	}
	defer os.RemoveAll(scratch)
	if err := os.CopyFS(scratch, sources); err != nil {
		return "", fmt.Errorf("build the adversary: %w", err)
	}
	dir := filepath.Join(scratch, "guest")
	code, err := filepath.Glob(filepath.Join(dir, "*.[cS]"))
	if err != nil {
		return "", fmt.Errorf("build the adversary: %w", err)
	}
	elf, image := filepath.Join(scratch, "elf"), filepath.Join(scratch, "rom")
	compile := append([]string{"-o", elf, "-T", filepath.Join(dir, "link.ld")}, compileFlags...)
	if err := run(ctx, "gcc", append(compile, code...)...); err != nil {
		return "", err
	}
	extract := []string{"-O", "binary", "-j", ".payload", "-j", ".boot", "-j", ".reset"}
	if err := run(ctx, "objcopy", append(extract, elf, image)...); err != nil {
		return "", err
	}
	rom := filepath.Join(out, "adversary.rom")
	return rom, os.Rename(image, rom)
}

func run(ctx context.Context, program string, args ...string) error {
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the adversary: %s: %w\n%s", program, err, out)
	}
	return nil
}
