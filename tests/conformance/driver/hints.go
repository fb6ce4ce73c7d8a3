// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"fmt"
	"os"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/window"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// QEMU does not start the device before it has the hint window (docs/window.md).
const windowSize = 1 << 16

func (d *device) windowExtension() vhostuser.Extension {
	return vhostuser.Extension{
		ProtocolFeature: protocol.WindowProtocolFeature,
		Request:         protocol.WindowRequest,
		Replies:         true,
		Handle: func(payload []byte, files []*os.File) ([]byte, []int, error) {
			for _, f := range files {
				f.Close()
			}
			return d.openWindow(payload)
		},
	}
}

// openWindow makes a window, in place of an earlier one. A migration that asks
// through it hears at once that there are no hints.
func (d *device) openWindow(request []byte) (reply []byte, fds []int, err error) {
	terms, err := window.Agree(request, 0)
	if err != nil {
		return nil, nil, err
	}
	w, err := window.New(windowSize, terms)
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
					w.Publish(w.Request().Generation, window.Answer{Status: protocol.AnswerDisabled})
				}
			})
		}
	}()
	return w.Reply(), w.FDs(), err
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
