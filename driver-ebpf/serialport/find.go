// SPDX-License-Identifier: Apache-2.0

package serialport

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// name is the port's, as the host gives it (docs/spec.md, section 7.4).
const name = "org.fbpp-project.agent.0"

// find returns the device node of the port. It searches class, a folder of sysfs, because the
// links in /dev/virtio-ports exist only with udev.
func find(class, dev string) (string, error) {
	names, err := filepath.Glob(filepath.Join(class, "*", "name"))
	if err != nil {
		return "", fmt.Errorf("find agent port: %w", err)
	}
	for _, path := range names {
		text, err := os.ReadFile(path)
		if err == nil && string(bytes.TrimSpace(text)) == name {
			return filepath.Join(dev, filepath.Base(filepath.Dir(path))), nil
		}
	}
	return "", fmt.Errorf("find agent port %s: %w", name, os.ErrNotExist)
}
