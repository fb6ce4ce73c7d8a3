// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is an uncompressed kernel module.
type module struct {
	name    string
	content []byte
}

// indexModules maps the name of every module below dir to its path. A folder
// that does not exist has none.
func indexModules(dir string) (map[string]string, error) {
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := filepath.Base(path)
		if i := strings.Index(base, ".ko"); i > 0 && d.Type().IsRegular() {
			found[moduleName(base[:i])] = path
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list kernel modules: %w", err)
	}
	return found, nil
}

// moduleName returns a module's name as the kernel spells it: with underscores
// instead of dashes.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// loadOrder reads the wanted modules and their dependencies, each after its own
// dependencies. A name that is not available is taken to be built into the kernel, as
// virtio_pci is since Debian 13.
func loadOrder(
	ctx context.Context, available map[string]string, wanted []string,
) ([]module, error) {
	var order []module
	seen := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		path, ok := available[name]
		if seen[name] || !ok {
			return nil
		}
		seen[name] = true
		content, err := readModule(ctx, path)
		if err != nil {
			return err
		}
		deps, err := moduleDepends(content)
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		for _, d := range deps {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, module{name: name, content: content})
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// readModule reads a module, and decompresses it: not every kernel can load a
// compressed module.
func readModule(ctx context.Context, path string) ([]byte, error) {
	if strings.HasSuffix(path, ".ko") {
		return os.ReadFile(path)
	}
	if !strings.HasSuffix(path, ".ko.xz") {
		return nil, fmt.Errorf("read module %s: unknown compression", path)
	}
	content, err := exec.CommandContext(ctx, "xz", "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("uncompress module %s: %w", path, withStderr(err))
	}
	return content, nil
}

// moduleDepends reads the "depends" entry of a module's .modinfo section.
func moduleDepends(content []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it has no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok {
			return strings.FieldsFunc(string(list), func(r rune) bool { return r == ',' }), nil
		}
	}
	return nil, nil
}
