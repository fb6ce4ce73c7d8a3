// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// QEMU does not start the device before it has the hint window (docs/window.md).
const (
	windowFeature = 48
	windowRequest = 0x4642
	windowSize    = 1 << 16
)

func (d *device) windowExtension() vhostuser.Extension {
	return vhostuser.Extension{
		ProtocolFeature: windowFeature,
		Request:         windowRequest,
		Replies:         true,
		Handle: func(_ []byte, files []*os.File) ([]byte, []int, error) {
			for _, f := range files {
				f.Close()
			}
			return d.openWindow()
		},
	}
}

// openWindow makes a window, in place of an earlier one. A migration that asks
// through it hears at once that there are no hints.
func (d *device) openWindow() (reply []byte, fds []int, err error) {
	w, err := window.New(windowSize)
	if err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.closeWindow()
	d.window = w
	go func() {
		for w.WaitAsk() == nil {
			d.locked(func() {
				if d.window == w {
					w.Publish(w.Request().Generation, window.Answer{Status: window.StatusDisabled})
				}
			})
		}
	}()
	reply = make([]byte, 16)
	binary.LittleEndian.PutUint32(reply, window.Version)
	binary.LittleEndian.PutUint64(reply[8:], uint64(w.Size()))
	return reply, w.FDs(), err
}

// closeWindow closes the window, if there is one. d.mu is held.
func (d *device) closeWindow() error {
	if d.window == nil {
		return nil
	}
	err := d.window.Close()
	d.window = nil
	if err != nil {
		return fmt.Errorf("close the hint window: %w", err)
	}
	return nil
}
