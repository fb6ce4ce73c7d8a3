// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// Initramfs lists the files of an initramfs by their path in the guest, which
// begins without a slash; the values are paths on the host.
type Initramfs map[string]string

// NewInitramfs returns the files that every guest has: /init and the kernel's
// modules in /modules.
func NewInitramfs(init string, k *Kernel) Initramfs {
	files := Initramfs{"init": init}
	for _, m := range k.Modules {
		files["modules/"+filepath.Base(m)] = m
	}
	return files
}

// Archive writes the files as a newc archive and returns its bytes. Equal files
// give equal bytes: no times, owners or inode numbers of the host get in.
func (i Initramfs) Archive() ([]byte, error) {
	records := []cpio.Record{cpio.CharDev("dev/console", 0o600, 5, 1)}
	dirs := map[string]bool{"dev": true, "proc": true, "sys": true, "tmp": true}
	for name, source := range i {
		content, err := os.ReadFile(source)
		if err != nil {
			return nil, fmt.Errorf("write initramfs: %w", err)
		}
		records = append(records, cpio.StaticFile(name, string(content), 0o755))
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	// The kernel unpacks in order: a folder sorts before what it holds.
	slices.SortFunc(records, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	cpio.MakeAllReproducible(records)

	var out bytes.Buffer
	w := cpio.Newc.Writer(&out)
	if err := cpio.WriteRecords(w, records); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("write initramfs: %w", err)
	}
	return out.Bytes(), nil
}

// WriteTo writes the archive into dir under a name made of its content, and
// returns the path. What is there already is left alone.
func (i Initramfs) WriteTo(dir string) (string, error) {
	archive, err := i.Archive()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(archive)
	name := filepath.Join(dir, "initramfs-"+hex.EncodeToString(sum[:8])+".cpio")
	if info, err := os.Stat(name); err == nil && info.Size() == int64(len(archive)) {
		return name, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write initramfs: %w", err)
	}
	if err := replaceFile(name, archive); err != nil {
		return "", fmt.Errorf("write initramfs: %w", err)
	}
	return name, nil
}
