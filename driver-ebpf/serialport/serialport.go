// SPDX-License-Identifier: Apache-2.0

package serialport

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// name is the port's, as the host gives it (docs/spec.md, section 7.4).
const name = "org.fbpp-project.agent.0"

// patience is how long the host may take to open its side. QEMU tries to connect to fbppd once a
// second.
const patience = 3 * time.Second

// Write writes a message to the port. The error wraps os.ErrNotExist if there is no such port,
// and os.ErrDeadlineExceeded if the host does not read within three seconds.
func Write(message []byte) error {
	path, err := find("/sys/class/virtio-ports", "/dev")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open agent port: %w", err)
	}
	err = f.SetWriteDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = f.Write(message) // in one piece: the driver makes one buffer of it
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write to agent port: %w", err)
	}
	return nil
}

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
